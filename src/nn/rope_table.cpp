#include "verne/nn/rope_table.hpp"

#include <cmath>

namespace verne {

std::vector<float> rope_table_values(const RopeConfig& rope, std::int64_t positions) {
  const std::int64_t half = rope.rotary_dim / 2;
  std::vector<float> frequency(static_cast<std::size_t>(half));
  for (std::int64_t j = 0; j < half; ++j) {
    const float exponent = static_cast<float>(2 * j) / static_cast<float>(rope.rotary_dim);
    float f = 1.0f / std::pow(static_cast<float>(rope.theta), exponent);
    if (rope.scaling == RopeConfig::Scaling::linear) f /= static_cast<float>(rope.factor);
    if (rope.scaling == RopeConfig::Scaling::llama3) {
      // Long waves are slowed by `factor`, short ones kept, those between blended.
      const double original = static_cast<double>(rope.original_max_position_embeddings);
      const float wavelength = static_cast<float>(2 * M_PI) / f;
      if (wavelength > original / rope.low_freq_factor) {
        f /= static_cast<float>(rope.factor);
      } else if (!(wavelength < original / rope.high_freq_factor)) {
        const float smooth =
            (static_cast<float>(original) / wavelength - static_cast<float>(rope.low_freq_factor)) /
            static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
        f = (1 - smooth) * f / static_cast<float>(rope.factor) + smooth * f;
      }
    }
    frequency[static_cast<std::size_t>(j)] = f;
  }
  std::vector<float> table(static_cast<std::size_t>(2 * positions * half));
  for (std::int64_t p = 0; p < positions; ++p) {
    for (std::int64_t j = 0; j < half; ++j) {
      const float angle = static_cast<float>(p) * frequency[static_cast<std::size_t>(j)];
      table[static_cast<std::size_t>(p * half + j)] =
          static_cast<float>(std::cos(static_cast<double>(angle)));
      table[static_cast<std::size_t>((positions + p) * half + j)] =
          static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
  return table;
}

}  // namespace verne
