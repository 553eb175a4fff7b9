#include "verne/host/layout.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "small_model.hpp"

namespace verne {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

Deck deck_of(std::int64_t tensor, std::int64_t micro_batch, std::int64_t global_batch) {
  Deck deck;
  deck.parallel.tensor = tensor;
  deck.train.micro_batch = micro_batch;
  deck.train.global_batch = global_batch;
  deck.data.seq_length = 30;
  return deck;
}

std::string refusal(const Deck& deck, const ModelConfig& model, int ranks) {
  try {
    accumulation_steps(deck.train, make_layout(deck, model, 0, ranks).parallel);
  } catch (const UserError& error) {
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

TEST(Layout, DataRanksAreWhatIsLeft) {
  const ModelConfig model = testing::small_config("llama");
  Deck deck = deck_of(2, 2, 24);
  ParallelLayout layout = make_layout(deck, model, 5, 8).parallel;
  EXPECT_EQ(layout.grid.sizes().tensor, 2);
  EXPECT_EQ(layout.grid.sizes().data, 4);
  EXPECT_EQ(layout.grid.tensor(), 1);
  EXPECT_EQ(layout.grid.data(), 2);
  EXPECT_EQ(layout.chunks, 1);
  EXPECT_EQ(accumulation_steps(deck.train, layout), 3);
  deck.parallel.context = deck.parallel.pipeline = deck.parallel.virtual_pipeline = 2;
  layout = make_layout(deck, model, 13, 16).parallel;
  EXPECT_EQ(layout.grid.sizes().data, 2);
  EXPECT_EQ(layout.grid.pipeline(), 1);
  EXPECT_EQ(layout.grid.data(), 1);
  EXPECT_EQ(layout.grid.context(), 0);
  EXPECT_EQ(layout.grid.tensor(), 1);
  EXPECT_EQ(layout.chunks, 2);
  EXPECT_EQ(accumulation_steps(deck.train, layout), 6);
}

TEST(Layout, RowsArePaddedToWhatTheyAreCutInto) {
  const ModelConfig model = testing::small_config("llama", 131, 4);
  const auto check = [&](std::int64_t tensor, std::int64_t context, Sequence wanted,
                         TensorParallel::Sequence sequence, std::int64_t length) {
    Deck deck = deck_of(tensor, 1, 8);
    deck.parallel.context = context;
    deck.parallel.sequence = wanted;
    const DeckLayout layout = make_layout(deck, model, 0, static_cast<int>(tensor * context));
    EXPECT_EQ(layout.parallel.sequence, sequence) << tensor << " " << context;
    EXPECT_EQ(layout.padded_seq_length, length) << tensor << " " << context;
  };
  using enum TensorParallel::Sequence;
  const Sequence as_built = Deck{}.parallel.sequence;
  check(4, 1, as_built, sharded, 32);
  check(4, 1, Sequence::off, whole, 30);
  check(1, 1, Sequence::on, whole, 30);
  check(1, 2, as_built, whole, 32);    // four chunks
  check(4, 2, as_built, sharded, 32);  // sixteen pieces
  check(4, 4, as_built, sharded, 32);
  check(2, 3, as_built, sharded, 36);  // twelve
  check(4, 3, Sequence::off, whole, 30);
}

TEST(Layout, NearestPipelinesAreNamed) {
  const ModelConfig model = testing::small_config("llama");  // 2 layers
  Deck deck = deck_of(1, 1, 10);
  deck.parallel.pipeline = 5;
  EXPECT_THAT(refusal(deck, model, 5), AllOf(HasSubstr("parallel.pipeline = 5"), HasSubstr("2 layers"),
                                             HasSubstr("nearest that fits is 4")));
  deck.parallel.pipeline = 2;
  deck.parallel.virtual_pipeline = 3;
  EXPECT_THAT(refusal(deck, model, 2), HasSubstr("nearest that fits is parallel.virtual_pipeline = 2"));
  deck.parallel.pipeline = 1;
  EXPECT_THAT(refusal(deck, model, 2), HasSubstr("but parallel.pipeline is 1"));
}

TEST(Layout, TensorSizesThatFitAreNamed) {
  ModelConfig model = testing::small_config("llama");  // 4 heads, 2 kv heads, 48 inner
  EXPECT_THAT(refusal(deck_of(3, 1, 8), model, 3),
              AllOf(HasSubstr("parallel.tensor = 3"), HasSubstr("num_attention_heads 4"),
                    HasSubstr("intermediate_size 48"), HasSubstr("num_key_value_heads 2"),
                    HasSubstr("tensor sizes that fit this model: 1, 2, 4")));
  EXPECT_THAT(refusal(deck_of(8, 1, 8), model, 8), HasSubstr("tensor sizes that fit this model: 1, 2, 4"));
  model.intermediate_size = 50;
  EXPECT_THAT(refusal(deck_of(4, 1, 8), model, 4), HasSubstr("fit this model: 1, 2"));
  model.intermediate_size = 48;
  model.heads = 12;
  model.kv_heads = 4;  // 3 and 6 neither divide nor are divided by 4
  for (int tensor : {3, 6})
    EXPECT_THAT(refusal(deck_of(tensor, 1, 8), model, tensor), HasSubstr("fit this model: 1, 2, 4, 12"));
}

TEST(Layout, RanksMustBeAMultipleOfTheTensorSize) {
  const ModelConfig model = testing::small_config("llama");
  EXPECT_THAT(refusal(deck_of(4, 1, 8), model, 2),
              AllOf(HasSubstr("parallel.tensor = 4"), HasSubstr("2 ranks")));
  EXPECT_THAT(refusal(deck_of(2, 1, 9), model, 3),
              AllOf(HasSubstr("parallel.tensor=2"), HasSubstr("nearest layout")));
}

TEST(Layout, NearestGlobalBatchesAreNamed) {
  const ModelConfig model = testing::small_config("llama");
  EXPECT_THAT(refusal(deck_of(1, 3, 20), model, 2),
              AllOf(HasSubstr("train.global_batch = 20"), HasSubstr("micro_batch 3 × 2 data ranks = 6"),
                    HasSubstr("nearest that are: 18 and 24")));
  EXPECT_THAT(refusal(deck_of(1, 4, 2), model, 1),
              AllOf(HasSubstr("nearest that are: 4"), Not(HasSubstr("0 and"))));
}

}  // namespace
}  // namespace verne
