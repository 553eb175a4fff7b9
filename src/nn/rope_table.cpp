#include "verne/nn/rope_table.hpp"

#include <algorithm>
#include <cmath>

namespace verne {
namespace {

/// Long waves are slowed by `factor`, short ones kept, those between blended.
float llama3_frequency(const RopeConfig& rope, float plain) {
  const auto original = static_cast<double>(rope.original_max_position_embeddings);
  const float wavelength = static_cast<float>(2 * M_PI) / plain;
  if (wavelength > original / rope.low_freq_factor) return plain / static_cast<float>(rope.factor);
  if (wavelength < original / rope.high_freq_factor) return plain;
  const float smooth =
      (static_cast<float>(original) / wavelength - static_cast<float>(rope.low_freq_factor)) /
      static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
  return (1 - smooth) * plain / static_cast<float>(rope.factor) + smooth * plain;
}

/// Components between which yarn blends: those that turn beta_fast and beta_slow times within the original
/// length.
struct YarnRange {
  explicit YarnRange(const RopeConfig& rope) {
    const auto component = [&](double turns) {
      const auto original = static_cast<double>(rope.original_max_position_embeddings);
      return static_cast<double>(rope.rotary_dim) * std::log(original / (turns * 2 * M_PI)) /
             (2 * std::log(rope.theta));
    };
    low = component(rope.beta_fast);
    high = component(rope.beta_slow);
    if (rope.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(rope.rotary_dim - 1));
    if (low == high) high += 0.001;
  }
  double low, high;
};

/// inv = extrapolated·(1 − ramp) + interpolated·ramp, ramp from 0 at `low` to 1 at `high`.
float yarn_frequency(const RopeConfig& rope, const YarnRange& range, std::int64_t j, float period) {
  const float ramp = std::clamp(
      (static_cast<float>(j) - static_cast<float>(range.low)) / static_cast<float>(range.high - range.low),
      0.0f, 1.0f);
  const float kept = 1 - ramp;
  return 1 / (static_cast<float>(rope.factor) * period) * (1 - kept) + 1 / period * kept;
}

/// theta^(−2j/rotary_dim), scaled: the angle between neighbouring positions.
std::vector<float> frequencies(const RopeConfig& rope) {
  std::vector<float> all;
  for (std::int64_t j = 0; j < rope.rotary_dim / 2; ++j) {
    const float exponent = static_cast<float>(2 * j) / static_cast<float>(rope.rotary_dim);
    const float period = std::pow(static_cast<float>(rope.theta), exponent), plain = 1 / period;
    switch (rope.scaling) {
      case RopeConfig::Scaling::none:
        all.push_back(plain);
        break;
      case RopeConfig::Scaling::linear:
        all.push_back(plain / static_cast<float>(rope.factor));
        break;
      case RopeConfig::Scaling::llama3:
        all.push_back(llama3_frequency(rope, plain));
        break;
      case RopeConfig::Scaling::yarn:
        all.push_back(yarn_frequency(rope, YarnRange(rope), j, period));
        break;
    }
  }
  return all;
}

}  // namespace

std::vector<float> rope_table_values(const RopeConfig& rope, std::int64_t positions) {
  const std::vector<float> frequency = frequencies(rope);
  const auto scale = static_cast<float>(rope.attention_factor);
  std::vector<float> table;
  table.reserve(2 * frequency.size() * static_cast<std::size_t>(positions));
  const auto append = [&](double (*wave)(double)) {
    for (std::int64_t p = 0; p < positions; ++p)
      for (const float f : frequency)
        table.push_back(static_cast<float>(wave(static_cast<double>(static_cast<float>(p) * f))) * scale);
  };
  append(std::cos);
  append(std::sin);
  return table;
}

}  // namespace verne
