#include "verne/tensor/region.hpp"

#include <gtest/gtest.h>

#include <bitset>

#include "verne/base/random.hpp"

namespace verne {
namespace {

constexpr std::uintptr_t kBase = std::uintptr_t{1} << 48;
using Bytes = std::bitset<96>;

void mark(Bytes& bytes, const Region& region) {
  for (std::int64_t r = 0; r < region.rows(); ++r) {
    for (std::uintptr_t b = 0; b < region.row_bytes(); ++b) bytes.set(region.row_begin(r) + b - kBase);
  }
}
Bytes bytes_of(const Region& region) {
  Bytes bytes;
  mark(bytes, region);
  return bytes;
}

/// A region of at most 96 bytes from kBase, drawn by `index`: half of them with one of two strides.
Region drawn(std::uint64_t index, std::uint32_t site) {
  auto below = [&, draw = std::uint64_t{0}](std::uint64_t bound) mutable {
    return static_cast<std::int64_t>(random_below({.seed = 3, .site = site}, 16 * index + draw++, bound));
  };
  const std::int64_t stride = below(4) == 0 ? 5 : 12, rows = 1 + below(5), begin = below(24);
  const std::int64_t width = 1 + below(static_cast<std::uint64_t>(rows == 1 ? 30 : stride));
  return {kBase + static_cast<std::uintptr_t>(begin), rows, width, stride};
}

TEST(Region, IsTheBytesOfATensor) {
  auto* at = reinterpret_cast<std::byte*>(kBase);  // NOLINT: never read
  const Tensor matrix(at, DType::bf16, {3, 10});
  const Region whole(matrix), columns(matrix.columns(2, 4)), row(matrix.columns(2, 4).rows(1, 1));
  EXPECT_TRUE(whole.contiguous());
  EXPECT_EQ(bytes_of(whole).count(), 60u);
  EXPECT_EQ(columns.rows(), 3);
  EXPECT_EQ(columns.begin(), kBase + 4);
  EXPECT_EQ(columns.end(), kBase + 2 * 20 + 12);
  EXPECT_EQ(columns.row_bytes(), 8u);
  EXPECT_EQ(columns.stride(), 20);
  EXPECT_TRUE(row.contiguous());
  EXPECT_EQ(row.begin(), kBase + 24);
  EXPECT_EQ(row.end(), kBase + 32);
  const Tensor heads = matrix.columns(2, 4).view({3, 2, 2});
  EXPECT_EQ(bytes_of(Region(heads)), bytes_of(columns));
  EXPECT_EQ(bytes_of(Region(Tensor(at, DType::f64, Shape{}))).count(), 8u);
  EXPECT_TRUE(Region(Tensor{}).empty());
  EXPECT_TRUE(Region(matrix.rows(1, 0)).empty());
}

/// The bytes of regions that must not overlap.
Bytes bytes_of(const std::vector<Region>& pieces) {
  Bytes bytes;
  for (const Region& piece : pieces) {
    EXPECT_FALSE((bytes & bytes_of(piece)).any()) << "pieces overlap";
    mark(bytes, piece);
  }
  return bytes;
}

TEST(Region, SetOperationsAreThoseOfTheBytes) {
  std::int64_t overlaps = 0, covered = 0;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const Region a = drawn(i, 1), b = drawn(i, 2);
    const Bytes in_a = bytes_of(a), in_b = bytes_of(b);
    SCOPED_TRACE(i);
    ASSERT_EQ(overlap(a, b), (in_a & in_b).any());
    ASSERT_EQ(covers(a, b), (in_b & ~in_a).none());
    overlaps += overlap(a, b);
    covered += covers(a, b);
    ASSERT_EQ(bytes_of(subtract(a, b)), in_a & ~in_b);
    ASSERT_EQ(bytes_of(clip(a, b.begin(), b.end())), in_a & bytes_of(Region(b.begin(), b.end())));
  }
  EXPECT_GT(overlaps, 5000);
  EXPECT_GT(covered, 500);
}

/// As the race checker needs it: millions of rows are one step.
TEST(Region, ColumnBlocksOfOneMatrixAreApartWhateverTheirHeight) {
  constexpr std::int64_t kRows = std::int64_t{1} << 40;
  const Region q(kBase, kRows, 64, 192), k(kBase + 64, kRows, 64, 192), v(kBase + 128, kRows, 64, 192);
  EXPECT_FALSE(overlap(q, k));
  EXPECT_FALSE(overlap(v, k));
  EXPECT_TRUE(overlap(Region(kBase + 100, kRows, 64, 192), v));
  std::vector<Region> left{Region(kBase, kBase + 192 * static_cast<std::uintptr_t>(kRows))};
  for (const Region& part : {k, q, v}) {
    std::vector<Region> next;
    for (const Region& region : left) {
      for (const Region& piece : subtract(region, part)) next.push_back(piece);
    }
    left = next;
    EXPECT_LE(left.size(), 4u);
  }
  EXPECT_TRUE(left.empty());
}

}  // namespace
}  // namespace verne
