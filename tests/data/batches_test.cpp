#include "verne/data/batches.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "test_data.hpp"
#include "testing.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

using ::testing::ElementsAre;

class BatchesTest : public ::testing::Test {
 protected:
  /// Document i has 2 + i % 5 tokens 100·i, 100·i + 1, ...; all but the first are trained.
  BatchesTest() {
    std::vector<Document> documents;
    for (std::uint32_t i = 0; i < 30; ++i) {
      Document document;
      for (std::uint32_t t = 0; t < 2 + i % 5; ++t) {
        document.tokens.push_back(100 * i + t);
        document.loss_mask.push_back(t > 0 ? 1 : 0);
      }
      documents.push_back(document);
    }
    testing::write_shard(path_, documents);
  }
  Batches batches(BatchOptions options) const {
    return Batches(testing::open_dataset(path_, options.seq_length), options);
  }

  testing::TemporaryDirectory folder_;
  std::filesystem::path path_ = folder_.path() / "a.h5";
};

TEST_F(BatchesTest, GlobalBatchIsTheSameForEveryLayout) {
  for (const Packing packing : {Packing::yes, Packing::no}) {
    const BatchOptions base{
        .seq_length = 8, .packing = packing, .seed = 4, .micro_batch = 4, .global_batch = 4};
    const Batches whole = batches(base);
    for (std::int64_t step = 1; step <= 12; ++step) {
      std::vector<std::int32_t> pieces;
      std::int64_t counted = 0;
      for (std::int64_t accumulation = 0; accumulation < 2; ++accumulation) {
        for (std::int64_t rank = 0; rank < 2; ++rank) {
          BatchOptions split = base;
          split.micro_batch = 1;
          split.data_rank = rank;
          split.data_ranks = 2;
          const MicroBatch piece = batches(split).batch(step).micro_batch(accumulation);
          pieces.insert(pieces.end(), piece.tokens.begin(), piece.tokens.end());
          counted += piece.counted_tokens;
        }
      }
      EXPECT_EQ(pieces, whole.batch(step).micro_batch(0).tokens);
      EXPECT_EQ(counted, whole.counts(step).counted_tokens);
      EXPECT_EQ(whole.batch(step).micro_batch(0).real_tokens, whole.counts(step).real_tokens);
      EXPECT_EQ(whole.batch(step).micro_batch(0).documents, whole.counts(step).documents);
    }
  }
}

TEST_F(BatchesTest, InOrderWithoutShufflingAndPacking) {
  const Batches batch = batches(
      {.seq_length = 6, .packing = Packing::no, .shuffle = Shuffle::no, .micro_batch = 2, .global_batch = 2});
  const MicroBatch second = batch.batch(2).micro_batch(0);  // records 2 and 3
  EXPECT_THAT(second.tokens, ElementsAre(200, 201, 202, 203, 0, 0, 300, 301, 302, 303, 304, 0));
  EXPECT_THAT(second.document_starts, ElementsAre(0, 6, 12));
}

TEST_F(BatchesTest, PackedDocumentsStayWholeAndApart) {
  const Batches batch =
      batches({.seq_length = 12, .padded_seq_length = 16, .seed = 2, .micro_batch = 1, .global_batch = 1});
  std::map<std::int32_t, std::int64_t> seen;  // tokens of each document
  for (std::int64_t step = 1; step <= batch.steps_in_epoch(); ++step) {
    const MicroBatch row = batch.batch(step).micro_batch(0);
    ASSERT_EQ(row.tokens.size(), 16u);
    for (std::size_t d = 0; d + 1 < row.document_starts.size(); ++d) {
      const auto begin = static_cast<std::size_t>(row.document_starts[d]),
                 end = static_cast<std::size_t>(row.document_starts[d + 1]);
      for (std::size_t t = begin; t < end; ++t) {
        EXPECT_EQ(row.positions[t], static_cast<std::int32_t>(t - begin));
        if (static_cast<std::int64_t>(d) >= row.documents) continue;  // padding
        EXPECT_EQ(row.tokens[t] / 100, row.tokens[begin] / 100);
        EXPECT_EQ(row.tokens[t] % 100, row.positions[t]);
        EXPECT_EQ(row.loss_mask[t], t + 1 < end ? 1 : 0);
        EXPECT_EQ(row.targets[t], t + 1 < end ? row.tokens[t] + 1 : 0);
        ++seen[row.tokens[t] / 100];
      }
    }
  }
  ASSERT_EQ(seen.size(), 30u);
  for (const auto& [document, tokens] : seen) EXPECT_EQ(tokens, 2 + document % 5);
}

TEST_F(BatchesTest, ValidationStopsWithAShortBatch) {
  const BatchOptions base{.seq_length = 6,
                          .packing = Packing::no,
                          .shuffle = Shuffle::no,
                          .end = BatchesEnd::stop,
                          .micro_batch = 4,
                          .global_batch = 8,
                          .data_rank = 1,
                          .data_ranks = 2};
  const Batches batch = batches(base);
  EXPECT_EQ(batch.steps_in_epoch(), 4);
  EXPECT_EQ(batch.counts(4).rows, 6);
  const MicroBatch last = batch.batch(4).micro_batch(0);  // records 28 and 29, two rows of padding
  EXPECT_EQ(last.documents, 2);
  EXPECT_EQ(last.tokens[0], 2800);
  EXPECT_EQ(last.tokens[6], 2900);
  EXPECT_EQ(last.tokens[12], 0);
  EXPECT_THROW(batch.batch(5).micro_batch(0), InternalError);
}

TEST_F(BatchesTest, NothingToTrainOnIsAnError) {
  testing::write_shard(folder_.path() / "empty.h5", {});
  EXPECT_THROW(Batches(testing::open_dataset(folder_.path() / "empty.h5", 6), {.seq_length = 6}), UserError);
}

}  // namespace
}  // namespace verne
