#pragma once
#include <array>
#include <cstdint>

namespace verne {

/// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
/// SC 2011). The result depends on (seed, site, step, element) alone, so resharding, recomputing and resuming
/// reproduce it. Header-only, so that CUDA kernels compute the same bits.
struct RandomSite {
  std::uint64_t seed = 0;
  std::uint32_t site = 0;  ///< which use of randomness: a hash of a parameter's name, a layer, the shuffle
  std::uint32_t step = 0;
};

#ifdef __CUDACC__
#define VERNE_HOST_DEVICE __host__ __device__
#else
#define VERNE_HOST_DEVICE
#endif

struct RandomWords {
  std::uint32_t word[4];
};

VERNE_HOST_DEVICE inline RandomWords philox(const RandomSite& site, std::uint64_t element) {
  std::uint32_t c0 = static_cast<std::uint32_t>(element), c1 = static_cast<std::uint32_t>(element >> 32);
  std::uint32_t c2 = site.site, c3 = site.step;
  std::uint32_t k0 = static_cast<std::uint32_t>(site.seed), k1 = static_cast<std::uint32_t>(site.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0, p1 = std::uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

/// Uniform in (0, 1), never an end.
VERNE_HOST_DEVICE inline float uniform_open(std::uint32_t word) {
  return (static_cast<float>(word >> 9) + 0.5f) * (1.0f / 8388608.0f);
}

/// Unbiased integer in [0, bound): rejects, taking further words at element counters of its own.
std::uint64_t random_below(const RandomSite& site, std::uint64_t element, std::uint64_t bound);

}  // namespace verne
