#include "verne/data/packing.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "verne/base/random.hpp"

namespace verne {
namespace {

using ::testing::ElementsAre;

/// First fit by its definition.
std::vector<std::vector<std::int64_t>> first_fit(const std::vector<std::int32_t>& lengths,
                                                 std::int64_t capacity) {
  std::vector<std::vector<std::int64_t>> rows;
  std::vector<std::int64_t> room;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    std::size_t row = 0;
    while (row < rows.size() && room[row] < lengths[i]) ++row;
    if (row == rows.size()) {
      rows.emplace_back();
      room.push_back(capacity);
    }
    rows[row].push_back(static_cast<std::int64_t>(i));
    room[row] -= lengths[i];
  }
  return rows;
}

std::vector<std::vector<std::int64_t>> content(const RowTable& table) {
  std::vector<std::vector<std::int64_t>> rows;
  for (std::int64_t row = 0; row < table.size(); ++row)
    rows.emplace_back(table[row].begin(), table[row].end());
  return rows;
}

std::vector<std::int32_t> random_lengths(std::size_t count, std::uint32_t most) {
  std::vector<std::int32_t> lengths;
  for (std::size_t i = 0; i < count; ++i)
    lengths.push_back(static_cast<std::int32_t>(1 + philox({}, i).word[0] % most));
  return lengths;
}

TEST(Packing, FirstFitByHand) {
  const std::vector<std::int32_t> lengths{5, 4, 3, 1, 8, 2};
  const RowTable table = pack_first_fit(lengths, 8, PackingOrder::as_given, 0);
  ASSERT_EQ(table.size(), 3);
  EXPECT_THAT(table[0], ElementsAre(0, 2));
  EXPECT_THAT(table[1], ElementsAre(1, 3, 5));
  EXPECT_THAT(table[2], ElementsAre(4));
  EXPECT_EQ(table.most_documents(), 3);
}

TEST(Packing, TreeAgreesWithTheDefinition) {
  const std::vector<std::int32_t> lengths = random_lengths(3000, 64);
  EXPECT_EQ(content(pack_first_fit(lengths, 64, PackingOrder::as_given, 0)), first_fit(lengths, 64));
}

TEST(Packing, EveryDocumentStandsOnceAndFits) {
  const std::vector<std::int32_t> lengths = random_lengths(2000, 100);
  const RowTable table = pack_first_fit(lengths, 128, PackingOrder::shuffled, 11);
  std::vector<int> seen(lengths.size());
  std::int64_t total = 0;
  for (const auto& row : content(table)) {
    ASSERT_FALSE(row.empty());
    std::int64_t used = 0;
    for (const std::int64_t document : row) {
      ++seen[static_cast<std::size_t>(document)];
      used += lengths[static_cast<std::size_t>(document)];
    }
    EXPECT_LE(used, 128);
    total += used;
  }
  EXPECT_EQ(seen, std::vector<int>(lengths.size(), 1));
  EXPECT_EQ(total, std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0}));
  EXPECT_GT(static_cast<double>(total) / static_cast<double>(128 * table.size()), 0.95);
}

TEST(Packing, SeedDecides) {
  const std::vector<std::int32_t> lengths = random_lengths(200, 50);
  const auto pack = [&](std::uint64_t seed) {
    return content(pack_first_fit(lengths, 64, PackingOrder::shuffled, seed));
  };
  EXPECT_EQ(pack(1), pack(1));
  EXPECT_NE(pack(1), pack(2));
}

TEST(Packing, OneDocumentARow) {
  const RowTable table = one_document_a_row(3);
  EXPECT_EQ(content(table), (std::vector<std::vector<std::int64_t>>{{0}, {1}, {2}}));
  EXPECT_EQ(pack_first_fit({}, 8, PackingOrder::shuffled, 0).size(), 0);
}

}  // namespace
}  // namespace verne
