#include "verne/host/layout.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "small_engine.hpp"

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
    make_layout(deck, model, 0, ranks);
  } catch (const UserError& error) {
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

TEST(Layout, DataRanksAreWhatIsLeft) {
  const ModelConfig model = testing::small_config("llama");
  const TrainLayout layout = make_layout(deck_of(2, 2, 24), model, 5, 8);
  EXPECT_EQ(layout.grid.sizes().tensor, 2);
  EXPECT_EQ(layout.grid.sizes().data, 4);
  EXPECT_EQ(layout.grid.tensor(), 1);
  EXPECT_EQ(layout.grid.data(), 2);
  EXPECT_EQ(layout.accumulation_steps, 3);
}

TEST(Layout, SequenceIsCutAndPaddedWhereTensorRanksAre) {
  const ModelConfig model = testing::small_config("llama", 131, 4);
  Deck deck = deck_of(4, 1, 8);
  EXPECT_EQ(make_layout(deck, model, 0, 4).sequence, TensorParallel::Sequence::sharded);
  EXPECT_EQ(make_layout(deck, model, 0, 4).padded_seq_length, 32);
  deck.parallel.sequence = Sequence::off;
  EXPECT_EQ(make_layout(deck, model, 0, 4).sequence, TensorParallel::Sequence::whole);
  EXPECT_EQ(make_layout(deck, model, 0, 4).padded_seq_length, 30);
  deck = deck_of(1, 1, 8);
  deck.parallel.sequence = Sequence::on;
  EXPECT_EQ(make_layout(deck, model, 0, 4).sequence, TensorParallel::Sequence::whole);
  EXPECT_EQ(make_layout(deck, model, 0, 4).padded_seq_length, 30);
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
