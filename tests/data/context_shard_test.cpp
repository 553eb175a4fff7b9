#include "verne/data/context_shard.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "verne/base/error.hpp"

namespace verne {
namespace {

using ::testing::ElementsAre;

/// Two rows of 8: documents of 3 and 5 tokens; of 6, and padding of 2.
MicroBatch two_rows() {
  MicroBatch batch{.rows = 2, .seq_length = 8};
  for (std::int32_t t = 0; t < 16; ++t) {
    batch.tokens.push_back(100 + t);
    batch.targets.push_back(101 + t);
    batch.loss_mask.push_back(static_cast<std::uint8_t>(t % 3 == 0));
  }
  for (const int length : {3, 5, 6, 2})
    for (std::int32_t i = 0; i < length; ++i) batch.positions.push_back(i);
  batch.document_starts = {0, 3, 8, 14, 16, 16};
  return batch;
}
constexpr MicroBatchShape kShape{
    .rows = 2, .seq_length = 8, .table = DocumentTable::packed, .document_capacity = 5};

TEST(ContextShard, OneRankHasEverything) {
  const MicroBatch batch = two_rows();
  const ContextShard shard = context_shard(batch, kShape, 0, 1);
  EXPECT_EQ(shard.tokens, batch.tokens);
  EXPECT_EQ(shard.targets, batch.targets);
  EXPECT_EQ(shard.positions, batch.positions);
  EXPECT_EQ(shard.loss_mask, batch.loss_mask);
  ASSERT_EQ(shard.parts.size(), 1u);
  EXPECT_THAT(shard.parts[0].query_starts, ElementsAre(0, 3, 8, 14, 16, 16));
  EXPECT_THAT(shard.parts[0].key_begins, ElementsAre(0, 3, 8, 14, 16));
  EXPECT_THAT(shard.parts[0].key_ends, ElementsAre(3, 8, 14, 16, 16));
}

/// Chunks of two tokens: rank 0 of 2 has chunks 0 and 3, rank 1 chunks 1 and 2.
TEST(ContextShard, RanksHoldOuterAndInnerChunks) {
  const MicroBatch batch = two_rows();
  const ContextShard outer = context_shard(batch, kShape, 0, 2), inner = context_shard(batch, kShape, 1, 2);
  EXPECT_THAT(outer.tokens, ElementsAre(100, 101, 108, 109, 106, 107, 114, 115));
  EXPECT_THAT(inner.tokens, ElementsAre(102, 103, 110, 111, 104, 105, 112, 113));
  EXPECT_THAT(inner.targets, ElementsAre(103, 104, 111, 112, 105, 106, 113, 114));
  EXPECT_THAT(inner.positions, ElementsAre(2, 0, 2, 3, 1, 2, 4, 5));
  EXPECT_THAT(inner.loss_mask, ElementsAre(0, 1, 0, 0, 0, 0, 1, 0));
  ASSERT_EQ(inner.parts.size(), 2u);
  // Chunk 1 of row 0 is tokens 2 and 3: the end of one document, the beginning of the next.
  EXPECT_THAT(inner.parts[0].query_starts, ElementsAre(0, 1, 2, 4, 4, 4));
  EXPECT_THAT(inner.parts[0].key_begins, ElementsAre(0, 3, 8, 16, 16));
  EXPECT_THAT(inner.parts[0].key_ends, ElementsAre(3, 4, 12, 16, 16));
  EXPECT_THAT(inner.parts[1].query_starts, ElementsAre(0, 2, 4, 4, 4, 4));
  EXPECT_THAT(inner.parts[1].key_begins, ElementsAre(3, 8, 16, 16, 16));
  EXPECT_THAT(inner.parts[1].key_ends, ElementsAre(6, 14, 16, 16, 16));
  EXPECT_THAT(outer.parts[1].query_starts, ElementsAre(0, 2, 4, 4, 4, 4));
  EXPECT_THAT(outer.parts[1].key_begins, ElementsAre(3, 14, 16, 16, 16));
  EXPECT_THAT(outer.parts[1].key_ends, ElementsAre(8, 16, 16, 16, 16));
}

/// Every token is on one rank, and the order says where.
TEST(ContextShard, OrderFindsEveryToken) {
  MicroBatch batch{.rows = 3, .seq_length = 24};
  batch.tokens.resize(72);
  std::iota(batch.tokens.begin(), batch.tokens.end(), 0);
  batch.targets = batch.positions = batch.tokens;
  batch.loss_mask.resize(72);
  batch.document_starts = {0, 24, 48, 72};
  const MicroBatchShape shape{
      .rows = 3, .seq_length = 24, .table = DocumentTable::packed, .document_capacity = 3};
  for (const int ranks : {1, 2, 3, 4, 6}) {
    std::vector<std::int32_t> in_rank_order;
    for (int rank = 0; rank < ranks; ++rank)
      for (const std::int32_t token : context_shard(batch, shape, rank, ranks).tokens)
        in_rank_order.push_back(token);
    const std::vector<std::int32_t> order = context_order(3, 24, ranks);
    ASSERT_EQ(order.size(), 72u);
    for (std::size_t t = 0; t < 72; ++t)
      EXPECT_EQ(in_rank_order[static_cast<std::size_t>(order[t])], static_cast<std::int32_t>(t)) << ranks;
  }
  EXPECT_THROW(context_order(1, 24, 5), InternalError);
}

/// Under a causal mask all ranks have about the same number of visible pairs.
TEST(ContextShard, WorkIsEven) {
  MicroBatch batch{.rows = 1, .seq_length = 64};
  batch.tokens.resize(64);
  batch.targets = batch.positions = batch.tokens;
  batch.loss_mask.resize(64);
  batch.document_starts = {0, 64};
  const MicroBatchShape shape{
      .rows = 1, .seq_length = 64, .table = DocumentTable::packed, .document_capacity = 1};
  for (int rank = 0; rank < 4; ++rank) {
    std::int64_t pairs = 0;
    for (const auto& part : context_shard(batch, shape, rank, 4).parts)
      for (std::int32_t q = part.query_starts[0]; q < part.query_starts[1]; ++q)
        pairs += part.key_ends[0] - part.key_begins[0] - (part.query_starts[1] - 1 - q);
    EXPECT_EQ(pairs, 64 * 65 / 2 / 4);
  }
}

}  // namespace
}  // namespace verne
