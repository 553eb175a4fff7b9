// Loss and gradients are one mean over the counted tokens of the global batch, however it is dealt out.
#include <gtest/gtest.h>
#include <mpi.h>

#include "../data/test_data.hpp"
#include "small_engine.hpp"
#include "testing.hpp"

namespace verne {
namespace {

using testing::Row;
using testing::SmallEngine;
using testing::SmallLayout;
using Sequence = TensorParallel::Sequence;

constexpr std::int64_t kLength = 15;  // no number of tensor ranks divides it

struct Expected {
  double loss = 0;
  std::map<std::string, std::vector<double>> gradients;
};

/// One rank, all rows in one micro-batch.
Expected reference(const ModelConfig& config, std::span<const Row> rows) {
  const HostGroup alone;
  SmallEngine engine(alone, config, {.micro_batch = std::ssize(rows)}, kLength);
  Expected expected;
  expected.loss = engine->accumulate_gradients(engine.batch(rows));
  expected.gradients = engine.gradients();
  return expected;
}

void expect_one_mean(const HostGroup& world, const std::string& family, std::int64_t kv_heads,
                     const std::vector<std::int64_t>& counted) {
  const ModelConfig config = testing::small_config(family, 131, kv_heads);
  const std::vector<Row> rows = testing::random_rows(3, counted, kLength, config.vocab_size);
  const Expected expected = reference(config, rows);
  for (SmallLayout layout : testing::small_layouts(world.size(), config)) {
    for (Sequence sequence : {Sequence::sharded, Sequence::whole}) {
      if (layout.tensor == 1 && sequence == Sequence::whole) continue;
      layout.sequence = sequence;
      const int model_ranks = layout.tensor * layout.context * layout.pipeline;
      const std::int64_t own = std::ssize(rows) * model_ranks / world.size();
      for (std::int64_t micro = 1; micro <= own; micro *= 2) {
        layout.micro_batch = micro;
        layout.micro_batches = own / micro;
        SmallEngine engine(world, config, layout, kLength);
        SCOPED_TRACE(fmt::format("{} kv {}, {}", family, kv_heads, layout.text()));
        const double loss = engine->accumulate_gradients(engine.batch(rows));
        EXPECT_NEAR(loss, expected.loss, 1e-6 * std::abs(expected.loss));
        const auto gradients = engine.gradients();
        ASSERT_EQ(gradients.size(), expected.gradients.size());
        for (const auto& [name, values] : expected.gradients)
          EXPECT_LE(testing::distance(gradients.at(name), values), 1e-5) << name;
      }
    }
  }
}

TEST(LossScaling, OneMeanHoweverTheBatchIsDealtOut) {
  const HostGroup world(MPI_COMM_WORLD);
  // With four data ranks the first has no counted token, the second a single one.
  const std::vector<std::int64_t> counted = {0, 0, 1, 0, 14, 3, 7, 5};
  expect_one_mean(world, "qwen3", 2, counted);
  expect_one_mean(world, "llama", 1, counted);
  expect_one_mean(world, "nemotron", 4, counted);
}

TEST(LossScaling, SingleCountedTokenInTheWholeBatch) {
  const HostGroup world(MPI_COMM_WORLD);
  expect_one_mean(world, "llama", 2, {0, 0, 0, 0, 0, 0, 1, 0});
}

/// By the definition: the sum of the counted log-probabilities over their number.
TEST(LossScaling, LossIsTheMeanOfTheCountedLogProbabilities) {
  const HostGroup alone;
  const ModelConfig config = testing::small_config("mistral");
  const std::vector<Row> rows = testing::random_rows(9, {4, 0, 9, 1}, kLength, config.vocab_size);
  SmallEngine engine(alone, config, {.micro_batch = 4}, kLength);
  const MicroBatch batch = testing::micro_batch_of(rows, kLength);
  const std::vector<float> found = engine.log_probabilities(batch);
  const std::vector<float> logits = engine.host().logits(batch);
  const auto columns = static_cast<std::size_t>(engine.host().logit_columns());
  double sum = 0;
  for (std::size_t t = 0; t < found.size(); ++t) {
    const auto target = static_cast<std::size_t>(batch.targets[t]);
    double normaliser = 0;
    for (std::size_t v = 0; v < 131; ++v)
      normaliser += std::exp(static_cast<double>(logits[t * columns + v]));
    const double expected = static_cast<double>(logits[t * columns + target]) - std::log(normaliser);
    EXPECT_NEAR(found[t], expected, 2e-6 * std::abs(expected) + 1e-6) << t;
    if (batch.loss_mask[t]) sum += expected;
  }
  EXPECT_NEAR(engine->accumulate_gradients(engine.batch(rows)), -sum / 14, 1e-6 * std::abs(sum / 14));
}

class Packing : public ::testing::Test {
 protected:
  Packing() : world(MPI_COMM_WORLD) {
    std::mt19937_64 random(17);
    for (int length : {2, 9, 31, 4, 17, 12, 3, 25, 8, 8, 6, 14}) {
      Document document;
      for (int t = 0; t < length; ++t) {
        document.tokens.push_back(static_cast<TokenId>(random() % 131));
        document.loss_mask.push_back(t > 0 && (t + 1 == length || random() % 3 != 0));
      }
      documents.push_back(document);
    }
    testing::write_shard(directory.path() / "train.h5", documents);
  }
  /// Log-probabilities of each document's targets, through rows of a table.
  std::vector<std::vector<float>> by_document(SmallEngine& engine, const TokenDataset& dataset,
                                              const RowTable& table, const MicroBatchShape& shape) {
    std::vector<std::vector<float>> all(documents.size());
    for (std::int64_t r = 0; r < table.size(); ++r) {
      const auto values = engine.log_probabilities(make_micro_batch(dataset, table, std::span(&r, 1), shape));
      auto at = values.begin();
      for (std::int64_t d : table[r]) {
        const auto length = dataset.lengths()[static_cast<std::size_t>(d)];
        all[static_cast<std::size_t>(d)].assign(at, at + length - 1);
        at += length;
      }
    }
    return all;
  }
  double loss(SmallEngine& engine, const TokenDataset& dataset, const RowTable& table,
              const MicroBatchShape& shape) {
    return engine->accumulate_gradients({.counted_tokens = dataset.counts().counted_tokens,
                                         .micro_batches = table.size(),
                                         .micro_batch = [&](std::int64_t r) {
                                           return make_micro_batch(dataset, table, std::span(&r, 1), shape);
                                         }});
  }

  HostGroup world;
  testing::TemporaryDirectory directory;
  std::vector<Document> documents;
};

TEST_F(Packing, DocumentsDoNotSeeEachOther) {
  constexpr std::int64_t kSequence = 31;
  const TokenDataset dataset = testing::open_dataset(directory.path() / "train.h5", kSequence);
  const RowTable packed = pack_first_fit(dataset.lengths(), kSequence, PackingOrder::as_given, 0);
  const RowTable apart = one_document_a_row(dataset.size());
  ASSERT_LT(packed.size(), apart.size() - 4);
  for (const char* family : {"qwen3", "nemotron"})
    for (SmallLayout layout : testing::small_layouts(world.size(), testing::small_config(family))) {
      if (layout.tensor * layout.context * layout.pipeline != world.size()) continue;  // one data rank
      SCOPED_TRACE(layout.text());
      const ModelConfig config = testing::small_config(family);
      const std::int64_t padded = padded_length(layout.on(world.rank(), world.size()), kSequence);
      const MicroBatchShape packed_shape{
          .rows = 1,
          .seq_length = padded,
          .table = DocumentTable::packed,
          .document_capacity = document_capacity(packed, 1, DocumentTable::packed)};
      const MicroBatchShape apart_shape{
          .rows = 1, .seq_length = padded, .table = DocumentTable::uniform, .document_capacity = 1};
      layout.micro_batches = packed.size();
      SmallEngine a(world, config, layout, packed_shape);
      layout.micro_batches = apart.size();
      SmallEngine b(world, config, layout, apart_shape);
      const auto found = by_document(a, dataset, packed, packed_shape),
                 expected = by_document(b, dataset, apart, apart_shape);
      for (std::size_t d = 0; d < documents.size(); ++d) {
        ASSERT_EQ(found[d].size(), documents[d].tokens.size() - 1);
        for (std::size_t t = 0; t < found[d].size(); ++t)
          EXPECT_NEAR(found[d][t], expected[d][t], 1e-6f * std::abs(expected[d][t]) + 1e-6f) << d << " " << t;
      }
      const double packed_loss = loss(a, dataset, packed, packed_shape),
                   apart_loss = loss(b, dataset, apart, apart_shape);
      EXPECT_NEAR(packed_loss, apart_loss, 1e-6 * apart_loss);
      const auto gradients = a.gradients(), expected_gradients = b.gradients();
      for (const auto& [name, values] : expected_gradients)
        EXPECT_LE(testing::distance(gradients.at(name), values), 1e-5) << name;
      // The definition once more, from the log-probabilities.
      double sum = 0;
      for (std::size_t d = 0; d < documents.size(); ++d)
        for (std::size_t t = 0; t < expected[d].size(); ++t)
          if (documents[d].loss_mask[t + 1]) sum -= static_cast<double>(expected[d][t]);
      EXPECT_NEAR(apart_loss, sum / static_cast<double>(dataset.counts().counted_tokens), 1e-6 * apart_loss);
    }
}

}  // namespace
}  // namespace verne
