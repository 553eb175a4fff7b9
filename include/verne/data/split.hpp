#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace verne {

enum class Part { train, validation, test };
inline constexpr std::array<Part, 3> kParts{Part::train, Part::validation, Part::test};
/// "train", "validation", "test"
std::string_view part_name(Part part);

/// Shares of the records that go to train, validation and test: not negative, summing to 1 (UserError
/// otherwise).
using SplitShares = std::array<double, 3>;
void check_split(const SplitShares& shares);

/// Sends records 0, 1, ... to parts of exactly round(shares · records) records, by the seed or by time.
class Splitter {
 public:
  /// A permutation drawn from the seed decides.
  Splitter(std::int64_t records, const SplitShares& shares, std::uint64_t seed);
  /// `times` of all records, by index: the earliest go to train, the latest to test; among equal times the
  /// index decides. No record of a later part is older than one of an earlier part.
  Splitter(std::span<const long double> times, const SplitShares& shares);

  Part part(std::int64_t index) const;

 private:
  std::array<std::int64_t, 2> bounds_{};  ///< ranks at which validation and test begin
  std::int64_t records_ = 0;
  std::uint64_t seed_ = 0;
  std::vector<Part> by_time_;
  enum class By { seed, time } by_ = By::seed;
};

}  // namespace verne
