#include "verne/nn/rope_table.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "testing.hpp"

namespace verne {
namespace {

/// Every case of rope_tables.json: the table that its config makes against transformers'. Frequencies may
/// differ by the last bits of a power, which positions multiply.
TEST(RopeTable, EqualsTransformers) {
  const auto cases = nlohmann::json::parse(testing::read_text(testing::golden_dir() / "rope_tables.json"));
  ASSERT_EQ(cases.size(), 19u);
  for (const auto& golden : cases) {
    SCOPED_TRACE(golden.at("name").get<std::string>());
    const RopeConfig rope = parse_model_config(golden.at("config").dump(), "config.json").rope;
    const auto frequencies = golden.at("inv_freq").get<std::vector<double>>();
    const std::vector<std::int64_t> sampled = golden.at("positions");
    const std::int64_t positions = sampled.back() + 1, half = std::ssize(frequencies);
    ASSERT_EQ(rope.rotary_dim, 2 * half);
    const std::vector<float> table = rope_table_values(rope, positions);
    ASSERT_EQ(std::ssize(table), 2 * positions * half);
    for (std::size_t row = 0; row < sampled.size(); ++row) {
      for (std::int64_t j = 0; j < half; ++j) {
        const auto column = static_cast<std::size_t>(j);
        const double angle = static_cast<double>(sampled[row]) * frequencies[column];
        for (const auto& [name, first] : {std::pair{"cos", std::int64_t{0}}, {"sin", positions}}) {
          const double expected = golden.at(name).at(row).at(column);
          const auto at = static_cast<std::size_t>((first + sampled[row]) * half + j);
          EXPECT_NEAR(table[at], expected, 4e-7 * angle + 2e-7 * std::abs(expected))
              << name << " " << j << " at position " << sampled[row];
        }
      }
    }
  }
}

/// Frequency j from a table: the angle at position 1.
double frequency(const std::vector<float>& table, std::int64_t positions, std::int64_t half, std::int64_t j) {
  const auto at = [&](std::int64_t row) {
    return static_cast<double>(table[static_cast<std::size_t>(row * half + j)]);
  };
  return std::atan2(at(positions + 1), at(1));
}

TEST(RopeTable, HoldsCosinesThenSines) {
  const RopeConfig rope{.theta = 1e4, .rotary_dim = 8};
  const std::int64_t positions = 300;
  const auto table = rope_table_values(rope, positions);
  ASSERT_EQ(table.size(), 2u * 300u * 4u);
  for (std::int64_t p = 0; p < positions; ++p) {
    for (std::int64_t j = 0; j < 4; ++j) {
      const double angle = static_cast<double>(p) * std::pow(1e4, -2.0 * static_cast<double>(j) / 8);
      EXPECT_NEAR(table[static_cast<std::size_t>(p * 4 + j)], std::cos(angle), 4e-5) << p << " " << j;
      EXPECT_NEAR(table[static_cast<std::size_t>((positions + p) * 4 + j)], std::sin(angle), 4e-5);
    }
  }
}

TEST(RopeTable, LinearScalingStretchesPositions) {
  const RopeConfig rope{.theta = 1e4, .rotary_dim = 8, .scaling = RopeConfig::Scaling::linear, .factor = 4};
  const auto table = rope_table_values(rope, 2);
  for (std::int64_t j = 0; j < 4; ++j)
    EXPECT_NEAR(frequency(table, 2, 4, j), std::pow(1e4, -static_cast<double>(j) / 4) / 4, 1e-7);
}

/// Llama 3.1: of 64 frequencies the first 29 are kept, the last 29 divided by 8, the six between blended.
TEST(RopeTable, Llama3Scaling) {
  const RopeConfig rope{.theta = 5e5,
                        .rotary_dim = 128,
                        .scaling = RopeConfig::Scaling::llama3,
                        .factor = 8,
                        .low_freq_factor = 1,
                        .high_freq_factor = 4,
                        .original_max_position_embeddings = 8192};
  const auto table = rope_table_values(rope, 2);
  for (std::int64_t j = 0; j < 64; ++j) {
    const double plain = std::pow(5e5, -static_cast<double>(j) / 64), found = frequency(table, 2, 64, j);
    const double wavelength = 2 * M_PI / plain;
    double expected = plain;
    if (j >= 35) expected = plain / 8;
    if (j > 28 && j < 35) {
      const double share = (8192 / wavelength - 1) / 3;
      expected = (1 - share) * plain / 8 + share * plain;
      EXPECT_LT(found, plain * 0.999);
      EXPECT_GT(found, plain / 8 * 1.001);
    }
    EXPECT_NEAR(found, expected, 2e-6 * expected) << j;
  }
}

}  // namespace
}  // namespace verne
