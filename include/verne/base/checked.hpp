#pragma once
#include <concepts>
#include <cstdint>
#include <optional>

namespace verne {

/// a·b and a+b of untrusted sizes; no value where the result does not fit.
template <std::integral T>
constexpr std::optional<T> checked_multiply(T a, T b) {
  T result{};
  if (__builtin_mul_overflow(a, b, &result)) return std::nullopt;
  return result;
}
template <std::integral T>
constexpr std::optional<T> checked_add(T a, T b) {
  T result{};
  if (__builtin_add_overflow(a, b, &result)) return std::nullopt;
  return result;
}

template <std::integral T>
constexpr T divide_round_up(T a, T b) {
  return (a + b - 1) / b;
}
template <std::integral T>
constexpr T round_up(T a, T multiple) {
  return divide_round_up(a, multiple) * multiple;
}

}  // namespace verne
