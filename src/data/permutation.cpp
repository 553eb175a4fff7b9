#include "verne/data/permutation.hpp"

#include "verne/base/error.hpp"
#include "verne/base/random.hpp"

namespace verne {

Permutation::Permutation(std::int64_t count, std::uint64_t seed, std::uint32_t site, std::uint32_t round)
    : count_(static_cast<std::uint64_t>(count)), seed_(seed), site_(site), round_(round) {
  require(count >= 0 && count < (std::int64_t{1} << 62), "a permutation of {} values", count);
  while (half_bits_ < 31 && (std::uint64_t{1} << (2 * half_bits_)) < count_) ++half_bits_;
}

std::uint64_t Permutation::encrypt(std::uint64_t value) const {
  constexpr std::uint64_t kFeistelRounds = 4;
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  std::uint64_t left = value >> half_bits_, right = value & mask;
  for (std::uint64_t i = 0; i < kFeistelRounds; ++i) {
    const RandomWords words = philox({.seed = seed_, .site = site_, .step = round_}, (i << 32) | right);
    const std::uint64_t mixed = left ^ (words.word[0] & mask);
    left = right;
    right = mixed;
  }
  return (left << half_bits_) | right;
}

std::int64_t Permutation::operator()(std::int64_t index) const {
  std::uint64_t value = static_cast<std::uint64_t>(index);
  require(value < count_, "index {} of a permutation of {} values", index, count_);
  do {
    value = encrypt(value);
  } while (value >= count_);
  return static_cast<std::int64_t>(value);
}

}  // namespace verne
