#include "verne/data/permutation.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace verne {
namespace {

std::vector<std::int64_t> table(std::int64_t count, std::uint64_t seed, std::uint32_t round) {
  const Permutation permutation(count, seed, 5, round);
  std::vector<std::int64_t> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(permutation(i));
  return values;
}

TEST(Permutation, EveryValueComesOnce) {
  for (const std::int64_t count : {1, 2, 3, 4, 5, 16, 17, 100, 1000, 65537}) {
    std::vector<int> seen(static_cast<std::size_t>(count));
    for (const std::int64_t value : table(count, 42, 0)) {
      ASSERT_GE(value, 0);
      ASSERT_LT(value, count);
      ++seen[static_cast<std::size_t>(value)];
    }
    EXPECT_EQ(seen, std::vector<int>(static_cast<std::size_t>(count), 1)) << count;
  }
}

TEST(Permutation, SeedAndRoundDecide) {
  EXPECT_EQ(table(50, 1, 2), table(50, 1, 2));
  EXPECT_NE(table(50, 1, 2), table(50, 1, 3));
  EXPECT_NE(table(50, 1, 2), table(50, 2, 2));
}

// Where value 0 of 8 goes is uniform over seeds: 8000 seeds, 1000 expected a place, standard deviation 30.
TEST(Permutation, IsUniform) {
  std::vector<int> places(8);
  for (std::uint64_t seed = 0; seed < 8000; ++seed)
    ++places[static_cast<std::size_t>(Permutation(8, seed, 5, 0)(0))];
  for (const int count : places) EXPECT_NEAR(count, 1000, 150);
}

}  // namespace
}  // namespace verne
