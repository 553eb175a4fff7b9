#include "verne/io/convert.hpp"

#include <cstring>

#include "verne/base/error.hpp"

namespace verne {
namespace {

/// A half-precision number in memory, so that it is told from other 16-bit types.
struct Half {
  std::uint16_t bits;
};

// Values pass through float, or double between float64 and float32: exact on the way in, one rounding on the
// way out (but for float64 to a 16-bit type, which rounds twice).
float widen(float value) {
  return value;
}
double widen(double value) {
  return value;
}
float widen(bf16 value) {
  return static_cast<float>(value);
}
float widen(Half value) {
  return f16_to_float(value.bits);
}

void narrow(double value, float& to) {
  to = static_cast<float>(value);
}
void narrow(double value, double& to) {
  to = value;
}
void narrow(double value, bf16& to) {
  to = bf16(static_cast<float>(value));
}
void narrow(double value, Half& to) {
  to.bits = float_to_f16(static_cast<float>(value));
}
void narrow(float value, float& to) {
  to = value;
}
void narrow(float value, double& to) {
  to = value;
}
void narrow(float value, bf16& to) {
  to = bf16(value);
}
void narrow(float value, Half& to) {
  to.bits = float_to_f16(value);
}

template <class From, class To>
void convert_all(std::span<const std::byte> source, std::span<std::byte> target) {
  const std::size_t count = source.size() / sizeof(From);
  const std::byte* from = source.data();
  std::byte* to = target.data();
  // memcpy: pieces of files need not be aligned.
  for (std::size_t i = 0; i < count; ++i) {
    From element;
    std::memcpy(&element, from + i * sizeof(From), sizeof(From));
    To result;
    narrow(widen(element), result);
    std::memcpy(to + i * sizeof(To), &result, sizeof(To));
  }
}

template <class From>
void convert_from(std::span<const std::byte> source, DType to, std::span<std::byte> target) {
  switch (to) {
    case DType::f32:
      return convert_all<From, float>(source, target);
    case DType::f64:
      return convert_all<From, double>(source, target);
    case DType::bf16:
      return convert_all<From, bf16>(source, target);
    case DType::f16:
      return convert_all<From, Half>(source, target);
    default:
      break;
  }
}

bool is_float(DType type) {
  return type == DType::f32 || type == DType::bf16 || type == DType::f16 || type == DType::f64;
}

}  // namespace

bool convertible(DType from, DType to) {
  return from == to || (is_float(from) && is_float(to));
}

void convert(DType from, std::span<const std::byte> source, DType to, std::span<std::byte> target) {
  require(convertible(from, to), "no conversion from {} to {}", name(from), name(to));
  const auto count = static_cast<std::int64_t>(source.size()) * 8 / bits(from);
  require(bytes_of(to, count) == static_cast<std::int64_t>(target.size()),
          "{} elements of {} into {} bytes of {}", count, name(from), target.size(), name(to));
  if (from == to) {
    if (!source.empty()) std::memcpy(target.data(), source.data(), source.size());
    return;
  }
  switch (from) {
    case DType::f32:
      return convert_from<float>(source, to, target);
    case DType::f64:
      return convert_from<double>(source, to, target);
    case DType::bf16:
      return convert_from<bf16>(source, to, target);
    case DType::f16:
      return convert_from<Half>(source, to, target);
    default:
      break;
  }
}

}  // namespace verne
