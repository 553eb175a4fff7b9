#pragma once
#include <cstdint>

namespace verne {

/// A permutation of [0, count) drawn from (seed, site, round), without a table: a Feistel network over the
/// smallest even number of bits that holds `count`, with Philox as its round function; values that fall
/// outside are sent through again until they fall inside (cycle walking: Black and Rogaway, "Ciphers with
/// arbitrary finite domains", 2002).
class Permutation {
 public:
  Permutation(std::int64_t count, std::uint64_t seed, std::uint32_t site, std::uint32_t round);
  std::int64_t operator()(std::int64_t index) const;  ///< index in [0, count)

 private:
  std::uint64_t encrypt(std::uint64_t value) const;
  std::uint64_t count_, seed_;
  std::uint32_t site_, round_;
  int half_bits_ = 1;
};

}  // namespace verne
