#include "verne/io/convert.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "verne/base/error.hpp"

namespace verne {
namespace {

template <class To, class From>
std::vector<To> converted(DType from, std::vector<From> values, DType to) {
  std::vector<To> result(values.size());
  convert(from, std::as_bytes(std::span(values)), to, std::as_writable_bytes(std::span(result)));
  return result;
}

TEST(Convert, RoundsToNearestEven) {
  // bf16 has 8 bits of precision: 1 + 2^-8 lies halfway and goes to the even neighbour.
  const std::vector<float> values = {1.0f, 1.00390625f, 1.01171875f, -0.0f, 3.0e38f};
  EXPECT_EQ(converted<std::uint16_t>(DType::f32, values, DType::bf16),
            (std::vector<std::uint16_t>{0x3f80, 0x3f80, 0x3f82, 0x8000, 0x7f62}));
  // f16 has 11 bits: 1 + 2^-11 lies halfway; 65520 rounds to infinity; 2^-24 is the smallest subnormal.
  EXPECT_EQ(
      converted<std::uint16_t>(
          DType::f32, std::vector<float>{1.00048828125f, 1.00146484375f, 65520.0f, 65504.0f, 5.9604645e-8f},
          DType::f16),
      (std::vector<std::uint16_t>{0x3c00, 0x3c02, 0x7c00, 0x7bff, 0x0001}));
}

TEST(Convert, WidensExactly) {
  EXPECT_EQ(converted<float>(DType::bf16, std::vector<std::uint16_t>{0x3f80, 0xc049, 0x0001}, DType::f32),
            (std::vector<float>{1.0f, -3.140625f, std::ldexp(1.0f, -133)}));
  EXPECT_EQ(converted<float>(DType::f16, std::vector<std::uint16_t>{0x3c00, 0xc248, 0x0001}, DType::f32),
            (std::vector<float>{1.0f, -3.140625f, std::ldexp(1.0f, -24)}));
  EXPECT_EQ(converted<double>(DType::f32, std::vector<float>{0.1f}, DType::f64), (std::vector<double>{0.1f}));
  EXPECT_EQ(converted<float>(DType::f64, std::vector<double>{0.1}, DType::f32), (std::vector<float>{0.1f}));
  EXPECT_EQ(converted<std::uint16_t>(DType::f16, std::vector<std::uint16_t>{0x3c00}, DType::bf16),
            (std::vector<std::uint16_t>{0x3f80}));
}

TEST(Convert, KeepsNotANumberAndCopiesEqualTypes) {
  const auto nan = converted<std::uint16_t>(
      DType::f32, std::vector<float>{std::numeric_limits<float>::quiet_NaN()}, DType::bf16);
  EXPECT_TRUE(std::isnan(converted<float>(DType::bf16, nan, DType::f32)[0]));
  EXPECT_EQ(converted<std::uint8_t>(DType::f8_e4m3, std::vector<std::uint8_t>{1, 255}, DType::f8_e4m3),
            (std::vector<std::uint8_t>{1, 255}));
  EXPECT_FALSE(convertible(DType::i64, DType::f32));
  EXPECT_THROW(converted<float>(DType::i32, std::vector<std::int32_t>{1}, DType::f32), InternalError);
}

}  // namespace
}  // namespace verne
