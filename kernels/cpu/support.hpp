#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "verne/base/checked.hpp"
#include "verne/ops/launch.hpp"
#include "verne/tensor/cpu_queue.hpp"
#include "verne/tensor/tensor.hpp"

/// What the CPU kernels share. Storage S is float, bf16 or double; arithmetic on it is in Real<S>. Results do
/// not depend on the number of threads: every output element is computed by one body, and sums run over
/// blocks fixed by the shape.
namespace verne {

template <class S>
using Real = std::conditional_t<std::is_same_v<S, double>, double, float>;

inline float load(bf16 stored) {
  return static_cast<float>(stored);
}
inline float load(float stored) {
  return stored;
}
inline double load(double stored) {
  return stored;
}

template <class S>
S store(Real<S> value) {
  return S(value);
}

/// Calls body(S{}) with the storage type of `type`.
template <class Body>
void with_storage(DType type, const Body& body) {
  switch (type) {
    case DType::f32:
      return body(float{});
    case DType::bf16:
      return body(bf16{});
    case DType::f64:
      return body(double{});
    default:
      break;
  }
  throw InternalError(fmt::format("no CPU kernel for {}", name(type)));
}

/// Bodies shorter than this many elements are not worth a thread of their own.
inline constexpr std::int64_t kGrainElements = 16384;

/// body(row) for every row of `width` elements.
template <class Body>
void for_rows(CpuQueue& queue, std::int64_t rows, std::int64_t width, const Body& body) {
  const std::int64_t grain = std::max<std::int64_t>(1, kGrainElements / std::max<std::int64_t>(width, 1));
  queue.parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) body(row);
  });
}

/// body(begin, end) over [0, count) in chunks of fixed length.
template <class Body>
void for_chunks(CpuQueue& queue, std::int64_t count, const Body& body) {
  queue.parallel_for(divide_round_up(count, kGrainElements), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t chunk = begin; chunk < end; ++chunk) {
      body(chunk * kGrainElements, std::min(count, (chunk + 1) * kGrainElements));
    }
  });
}

/// Σ of body(begin, end) over fixed chunks, added in order.
template <class Body>
double sum_over_chunks(CpuQueue& queue, std::int64_t count, const Body& body) {
  std::vector<double> partial(static_cast<std::size_t>(divide_round_up(count, kGrainElements)));
  for_chunks(queue, count, [&](std::int64_t begin, std::int64_t end) {
    partial[static_cast<std::size_t>(begin / kGrainElements)] = body(begin, end);
  });
  double sum = 0;
  for (const double one : partial) sum += one;
  return sum;
}

/// Sums of `width` columns over rows: body(row, sums) adds a row's terms. At most 64 blocks of rows are
/// summed apart and then added in order.
template <class Body>
std::vector<double> sum_over_rows(CpuQueue& queue, std::int64_t rows, std::int64_t width, const Body& body) {
  const std::int64_t block = std::max<std::int64_t>(16, divide_round_up<std::int64_t>(rows, 64));
  const std::int64_t blocks = divide_round_up(rows, block);
  std::vector<double> partial(static_cast<std::size_t>(std::max<std::int64_t>(blocks, 1) * width));
  queue.parallel_for(blocks, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      double* sums = partial.data() + b * width;
      for (std::int64_t row = b * block; row < std::min(rows, (b + 1) * block); ++row) body(row, sums);
    }
  });
  for (std::int64_t b = 1; b < blocks; ++b) {
    for (std::int64_t c = 0; c < width; ++c)
      partial[static_cast<std::size_t>(c)] += partial[static_cast<std::size_t>(b * width + c)];
  }
  partial.resize(static_cast<std::size_t>(width));
  return partial;
}

/// Pointer to a row; null where the tensor is not there.
template <class T>
T* row_of(const Tensor& tensor, std::int64_t row) {
  return tensor ? tensor.data<T>() + row * tensor.stride() : nullptr;
}

/// gradient[c] (+)= sums[c], rounded to R.
template <class R>
void put_gradient(const Tensor& gradient, Accumulate accumulate, const std::vector<double>& sums) {
  R* out = gradient.data<R>();
  for (std::size_t c = 0; c < sums.size(); ++c) {
    out[c] = static_cast<R>((accumulate == Accumulate::yes ? static_cast<double>(out[c]) : 0.0) + sums[c]);
  }
}

/// e^x within 2 units in the last place, in a form that compilers vectorise; 0 below −87.3, infinite
/// above 88.7. After Cody and Waite: x = n·log 2 + r with |r| ≤ log 2/2, e^r by its Taylor polynomial of
/// degree 7 (next term < 6e-9).
inline float exponential(float x) {
  constexpr float kLog2E = 1.44269504088896341f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRounder = 12582912.0f;  // 1.5·2^23: adding it rounds to an integer
  const float bounded = x > 88.8f ? 88.8f : x < -87.4f ? -87.4f : x;
  const float n = (bounded * kLog2E + kRounder) - kRounder;
  const float r = (bounded - n * kLn2High) - n * kLn2Low;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  // 2^n in two factors, since 2^128 is not a float.
  const auto exponent = static_cast<std::int32_t>(n);
  const std::int32_t half = exponent >> 1;
  const float scale1 = std::bit_cast<float>((half + 127) << 23),
              scale2 = std::bit_cast<float>((exponent - half + 127) << 23);
  const float value = p * scale1 * scale2;
  return x < -87.3f ? 0.0f : value;
}
inline double exponential(double x) {
  return std::exp(x);
}

}  // namespace verne
