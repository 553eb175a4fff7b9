#pragma once
#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace verne {

enum class DType : std::uint8_t { f32, bf16, f16, f64, i32, i64, u8, u32, f8_e4m3 };

/// Size of one element in bits.
constexpr int bits(DType type) {
  switch (type) {
    case DType::f64:
    case DType::i64:
      return 64;
    case DType::f32:
    case DType::i32:
    case DType::u32:
      return 32;
    case DType::bf16:
    case DType::f16:
      return 16;
    case DType::u8:
    case DType::f8_e4m3:
      return 8;
  }
  return 0;
}
constexpr std::int64_t bytes_of(DType type, std::int64_t count) {
  return count * bits(type) / 8;
}

/// "fp32", "bf16", ...: the spelling of decks and messages.
std::string_view name(DType type);
/// The inverse of `name`; also knows "float32", "bfloat16", "F32", "BF16", ... No value for an unknown word.
std::optional<DType> dtype_from_name(std::string_view text);

/// bfloat16 in memory: the upper half of a float32.
struct bf16 {
  std::uint16_t bits = 0;

  bf16() = default;
  /// Rounds to nearest even; NaN stays NaN.
  explicit bf16(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    if ((word & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<std::uint16_t>((word >> 16) | 0x0040u);
    } else {
      bits = static_cast<std::uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
    }
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

float f16_to_float(std::uint16_t half);
std::uint16_t float_to_f16(float value);

template <class T>
constexpr DType dtype_of() = delete;
template <>
constexpr DType dtype_of<float>() {
  return DType::f32;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::f64;
}
template <>
constexpr DType dtype_of<bf16>() {
  return DType::bf16;
}
template <>
constexpr DType dtype_of<std::int32_t>() {
  return DType::i32;
}
template <>
constexpr DType dtype_of<std::int64_t>() {
  return DType::i64;
}
template <>
constexpr DType dtype_of<std::uint8_t>() {
  return DType::u8;
}
template <>
constexpr DType dtype_of<std::uint32_t>() {
  return DType::u32;
}

}  // namespace verne
