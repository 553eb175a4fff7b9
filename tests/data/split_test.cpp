#include "verne/data/split.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "verne/base/error.hpp"
#include "verne/base/random.hpp"

namespace verne {
namespace {

std::map<Part, std::int64_t> sizes(const Splitter& splitter, std::int64_t records) {
  std::map<Part, std::int64_t> result;
  for (std::int64_t i = 0; i < records; ++i) ++result[splitter.part(i)];
  return result;
}

TEST(Splitter, PartsHaveTheirShares) {
  auto parts = sizes(Splitter(1000, {0.9, 0.05, 0.05}, 3), 1000);
  EXPECT_EQ(parts[Part::train], 900);
  EXPECT_EQ(parts[Part::validation], 50);
  EXPECT_EQ(parts[Part::test], 50);
  EXPECT_EQ(sizes(Splitter(7, {1, 0, 0}, 3), 7)[Part::train], 7);
  EXPECT_EQ(sizes(Splitter(7, {0, 0, 1}, 3), 7)[Part::test], 7);
}

TEST(Splitter, SeedDecides) {
  const auto parts = [](std::uint64_t seed) {
    const Splitter splitter(100, {0.5, 0.25, 0.25}, seed);
    std::vector<Part> result;
    for (std::int64_t i = 0; i < 100; ++i) result.push_back(splitter.part(i));
    return result;
  };
  EXPECT_EQ(parts(1), parts(1));
  EXPECT_NE(parts(1), parts(2));
}

TEST(Splitter, NoRecordOfALaterPartIsOlder) {
  std::vector<long double> times;
  for (std::uint64_t i = 0; i < 500; ++i)
    times.push_back(philox({.seed = 9}, i).word[0] % 60);  // many equal ones
  const Splitter splitter(times, {0.6, 0.3, 0.1});
  std::map<Part, std::pair<long double, long double>> range;
  for (std::size_t i = 0; i < times.size(); ++i) {
    const auto [found, fresh] =
        range.try_emplace(splitter.part(static_cast<std::int64_t>(i)), times[i], times[i]);
    found->second = {std::min(found->second.first, times[i]), std::max(found->second.second, times[i])};
  }
  EXPECT_LE(range[Part::train].second, range[Part::validation].first);
  EXPECT_LE(range[Part::validation].second, range[Part::test].first);
  auto parts = sizes(splitter, 500);
  EXPECT_EQ(parts[Part::train], 300);
  EXPECT_EQ(parts[Part::validation], 150);
}

TEST(Splitter, SharesSumToOne) {
  EXPECT_THROW(check_split({0.9, 0.5, 0.05}), UserError);
  EXPECT_THROW(check_split({1.1, -0.1, 0}), UserError);
  EXPECT_NO_THROW(check_split({0.7, 0.2, 0.1}));
}

}  // namespace
}  // namespace verne
