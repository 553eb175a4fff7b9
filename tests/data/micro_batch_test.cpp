#include "verne/data/micro_batch.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.hpp"
#include "testing.hpp"

namespace verne {
namespace {

using ::testing::ElementsAre;

class MicroBatches : public ::testing::Test {
 protected:
  MicroBatches() {
    testing::write_shard(folder_.path() / "a.h5",
                         {{{11, 12, 13}, {0, 1, 1}}, {{21, 22}, {0, 1}}, {{31, 32, 33, 34}, {0, 0, 1, 0}}});
  }
  testing::TemporaryDirectory folder_;
  const TokenDataset& dataset() {
    if (!dataset_) dataset_.emplace(testing::open_dataset(folder_.path() / "a.h5", 6));
    return *dataset_;
  }
  std::optional<TokenDataset> dataset_;
};

TEST_F(MicroBatches, PackedByHand) {
  const RowTable table({0, 2, 3}, {0, 1, 2});
  const std::int64_t capacity = document_capacity(table, 2, DocumentTable::packed);
  EXPECT_EQ(capacity, 6);
  const std::vector<std::int64_t> rows{0, 1};
  const MicroBatch batch = make_micro_batch(dataset(), table, rows, {2, 6, DocumentTable::packed, capacity});
  EXPECT_THAT(batch.tokens, ElementsAre(11, 12, 13, 21, 22, 0, 31, 32, 33, 34, 0, 0));
  EXPECT_THAT(batch.targets, ElementsAre(12, 13, 0, 22, 0, 0, 32, 33, 34, 0, 0, 0));
  EXPECT_THAT(batch.loss_mask, ElementsAre(1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 2, 0, 1, 0, 0, 1, 2, 3, 0, 1));
  EXPECT_THAT(batch.document_starts, ElementsAre(0, 3, 5, 6, 10, 12, 12));
  EXPECT_EQ(batch.documents, 3);
  EXPECT_EQ(batch.real_tokens, 9);
  EXPECT_EQ(batch.counted_tokens, 4);
}

TEST_F(MicroBatches, UniformByHandWithAnEmptyRow) {
  const RowTable table = one_document_a_row(3);
  const std::vector<std::int64_t> rows{1};
  const MicroBatch batch = make_micro_batch(dataset(), table, rows, {2, 4, DocumentTable::uniform, 2});
  EXPECT_THAT(batch.tokens, ElementsAre(21, 22, 0, 0, 0, 0, 0, 0));
  EXPECT_THAT(batch.targets, ElementsAre(22, 0, 0, 0, 0, 0, 0, 0));
  EXPECT_THAT(batch.loss_mask, ElementsAre(1, 0, 0, 0, 0, 0, 0, 0));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 2, 3, 0, 1, 2, 3));
  EXPECT_THAT(batch.document_starts, ElementsAre(0, 4, 8));
  EXPECT_EQ(batch.counted_tokens, 1);
  EXPECT_EQ(batch.real_tokens, 2);
}

TEST_F(MicroBatches, PackedPaddingRow) {
  const RowTable table({0, 1}, {1});
  const std::vector<std::int64_t> rows{0};
  const MicroBatch batch = make_micro_batch(dataset(), table, rows, {2, 3, DocumentTable::packed, 4});
  EXPECT_THAT(batch.document_starts, ElementsAre(0, 2, 3, 6, 6));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 0, 0, 1, 2));
}

}  // namespace
}  // namespace verne
