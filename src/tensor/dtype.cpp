#include "verne/tensor/dtype.hpp"

#include <array>
#include <cmath>
#include <utility>

namespace verne {
namespace {

struct Spelling {
  std::string_view text;
  DType type;
};
// The first spelling of a type is its name.
constexpr std::array kSpellings = {
    Spelling{"fp32", DType::f32},    Spelling{"float32", DType::f32}, Spelling{"F32", DType::f32},
    Spelling{"float", DType::f32},   Spelling{"bf16", DType::bf16},   Spelling{"bfloat16", DType::bf16},
    Spelling{"BF16", DType::bf16},   Spelling{"fp16", DType::f16},    Spelling{"float16", DType::f16},
    Spelling{"half", DType::f16},    Spelling{"F16", DType::f16},     Spelling{"fp64", DType::f64},
    Spelling{"float64", DType::f64}, Spelling{"F64", DType::f64},     Spelling{"i32", DType::i32},
    Spelling{"I32", DType::i32},     Spelling{"i64", DType::i64},     Spelling{"I64", DType::i64},
    Spelling{"u8", DType::u8},       Spelling{"U8", DType::u8},       Spelling{"u32", DType::u32},
    Spelling{"U32", DType::u32},     Spelling{"fp8", DType::f8_e4m3}, Spelling{"F8_E4M3", DType::f8_e4m3},
};

}  // namespace

std::string_view name(DType type) {
  for (const Spelling& spelling : kSpellings)
    if (spelling.type == type) return spelling.text;
  return "?";
}

std::optional<DType> dtype_from_name(std::string_view text) {
  for (const Spelling& spelling : kSpellings)
    if (spelling.text == text) return spelling.type;
  return std::nullopt;
}

float f16_to_float(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) {
    const float value = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -value : value;
  }
  const std::uint32_t wide = exponent == 31 ? 0xffu : exponent + 112;
  return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}

std::uint16_t float_to_f16(float value) {
  const auto word = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((word >> 16) & 0x8000u);
  const std::uint32_t magnitude = word & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;   // NaN
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // rounds to infinity
  if (magnitude < 0x38800000u) {                        // subnormal: units of 2^-24, rounded to even
    const auto units = static_cast<std::uint16_t>(std::nearbyint(std::ldexp(std::fabs(value), 24)));
    return sign | units;
  }
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return sign | static_cast<std::uint16_t>((rounded - 0x38000000u) >> 13);
}

}  // namespace verne
