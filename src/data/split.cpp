#include "verne/data/split.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "verne/base/error.hpp"
#include "verne/data/permutation.hpp"

namespace verne {
namespace {

constexpr std::uint32_t kSplitSite = 0x73706C74;  // "splt"

std::array<std::int64_t, 2> part_bounds(std::int64_t records, const SplitShares& shares) {
  check_split(shares);
  const auto round = [&](double share) {
    return std::min<std::int64_t>(records, std::llround(share * static_cast<double>(records)));
  };
  return {round(shares[0]), shares[2] == 0 ? records : round(shares[0] + shares[1])};
}

Part part_at(const std::array<std::int64_t, 2>& bounds, std::int64_t rank) {
  if (rank < bounds[0]) return Part::train;
  return rank < bounds[1] ? Part::validation : Part::test;
}

}  // namespace

std::string_view part_name(Part part) {
  constexpr std::array<std::string_view, 3> kNames{"train", "validation", "test"};
  return kNames[static_cast<std::size_t>(part)];
}

void check_split(const SplitShares& shares) {
  double sum = 0;
  bool good = true;
  for (const double share : shares) {
    good = good && share >= 0 && share <= 1;
    sum += share;
  }
  require_user(good && std::abs(sum - 1) < 1e-6,
               "prepare.split={},{},{}: expected three shares from 0 to 1 that sum to 1, for train, "
               "validation and test",
               shares[0], shares[1], shares[2]);
}

Splitter::Splitter(std::int64_t records, const SplitShares& shares, std::uint64_t seed)
    : bounds_(part_bounds(records, shares)), records_(records), seed_(seed) {}

Splitter::Splitter(std::span<const long double> times, const SplitShares& shares)
    : bounds_(part_bounds(static_cast<std::int64_t>(times.size()), shares)),
      records_(static_cast<std::int64_t>(times.size())),
      by_time_(times.size()),
      by_(By::time) {
  std::vector<std::size_t> order(times.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return times[a] < times[b]; });
  for (std::size_t rank = 0; rank < order.size(); ++rank) {
    by_time_[order[rank]] = part_at(bounds_, static_cast<std::int64_t>(rank));
  }
}

Part Splitter::part(std::int64_t index) const {
  require(index >= 0 && index < records_, "record {} of {}", index, records_);
  if (by_ == By::time) return by_time_[static_cast<std::size_t>(index)];
  return part_at(bounds_, Permutation(records_, seed_, kSplitSite, 0)(index));
}

}  // namespace verne
