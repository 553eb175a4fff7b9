#include "verne/base/random.hpp"

namespace verne {

std::uint64_t random_below(const RandomSite& site, std::uint64_t element, std::uint64_t bound) {
  // Multiply-shift with rejection (Lemire, "Fast random integer generation in an interval", 2019).
  const std::uint64_t threshold = (0 - bound) % bound;
  for (std::uint32_t attempt = 0;; ++attempt) {
    RandomSite retry = site;
    retry.step += attempt * 0x85EBCA6Bu;
    const RandomWords words = philox(retry, element);
    const std::uint64_t value = (std::uint64_t{words.word[0]} << 32) | words.word[1];
    const auto product = static_cast<unsigned __int128>(value) * bound;
    if (static_cast<std::uint64_t>(product) >= threshold) return static_cast<std::uint64_t>(product >> 64);
  }
}

}  // namespace verne
