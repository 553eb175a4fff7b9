#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "access_check.hpp"
#include "tolerance.hpp"
#include "verne/base/random.hpp"
#include "verne/ops/run.hpp"

namespace verne::testing {

using Values = std::vector<double>;

inline void encode(DType type, double value, std::byte* to) {
  const auto put = [to](auto stored) { std::memcpy(to, &stored, sizeof(stored)); };
  switch (type) {
    case DType::f64:
      return put(value);
    case DType::f32:
      return put(static_cast<float>(value));
    case DType::bf16:
      return put(bf16(static_cast<float>(value)));
    case DType::f16:
      return put(float_to_f16(static_cast<float>(value)));
    case DType::i32:
      return put(static_cast<std::int32_t>(value));
    case DType::i64:
      return put(static_cast<std::int64_t>(value));
    case DType::u32:
      return put(static_cast<std::uint32_t>(value));
    case DType::u8:
      return put(static_cast<std::uint8_t>(value));
    case DType::f8_e4m3:
      break;
  }
  throw InternalError(fmt::format("no test values of {}", name(type)));
}

inline double decode(DType type, const std::byte* from) {
  const auto get = [from](auto stored) {
    std::memcpy(&stored, from, sizeof(stored));
    return stored;
  };
  switch (type) {
    case DType::f64:
      return get(double{});
    case DType::f32:
      return static_cast<double>(get(float{}));
    case DType::bf16:
      return static_cast<double>(static_cast<float>(get(bf16{})));
    case DType::f16:
      return static_cast<double>(f16_to_float(get(std::uint16_t{})));
    case DType::i32:
      return get(std::int32_t{});
    case DType::i64:
      return static_cast<double>(get(std::int64_t{}));
    case DType::u32:
      return get(std::uint32_t{});
    case DType::u8:
      return get(std::uint8_t{});
    case DType::f8_e4m3:
      break;
  }
  throw InternalError(fmt::format("no test values of {}", name(type)));
}

/// Normal deviates that bfloat16 holds exactly, so that every dtype and every device starts from equal
/// inputs.
inline Values random_values(std::int64_t count, std::uint32_t seed, double deviation = 1) {
  Values values(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    const RandomWords words = philox({.seed = 20260101, .site = seed}, static_cast<std::uint64_t>(i));
    const double radius = std::sqrt(-2.0 * std::log(static_cast<double>(uniform_open(words.word[0]))));
    const double value =
        deviation * radius * std::cos(6.283185307179586 * static_cast<double>(uniform_open(words.word[1])));
    values[static_cast<std::size_t>(i)] = static_cast<float>(bf16(static_cast<float>(value)));
  }
  return values;
}

/// Integers in [low, high).
inline Values random_integers(std::int64_t count, std::uint32_t seed, std::int64_t low, std::int64_t high) {
  Values values(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    const auto draw = random_below({.seed = 7, .site = seed}, static_cast<std::uint64_t>(i),
                                   static_cast<std::uint64_t>(high - low));
    values[static_cast<std::size_t>(i)] = static_cast<double>(low + static_cast<std::int64_t>(draw));
  }
  return values;
}

/// Tensors of one queue for a test. Each lies between guards of 0xff bytes, which are NaN in every float type
/// and also fill the gaps of strided rows: a kernel that reads them spoils its result, one that writes them
/// is found.
class Workbench {
 public:
  explicit Workbench(Queue& queue) : queue_(queue), access_(queue) {}
  Queue& queue() const { return queue_; }

  /// Runs an operation on this bench's tensors. On the CPU, whose kernels are the reference, it is held to
  /// its `access()` besides.
  template <class Operation>
  void run(const Operation& operation) {
    const auto launch = [&] { verne::run(queue_, operation); };
    if (queue_.kind() != QueueKind::cpu) return launch();
    access_.launch(Operation::kName, operation.access(), launch);
  }

  /// `stride` 0: contiguous; else elements between rows.
  Tensor of(DType type, Shape shape, const Values& values, std::int64_t stride = 0) {
    require(std::ssize(values) == shape.count(), "{} values for a tensor {}", values.size(), shape.text());
    return place(type, shape, stride, &values);
  }
  Tensor random(DType type, Shape shape, std::uint32_t seed, double deviation = 1, std::int64_t stride = 0) {
    return of(type, shape, random_values(shape.count(), seed, deviation), stride);
  }
  Tensor integers(const Values& values) { return of(DType::i32, Shape{std::ssize(values)}, values); }
  Tensor mask(const Values& values) { return of(DType::u8, Shape{std::ssize(values)}, values); }
  /// Every element NaN: what an operation must overwrite.
  Tensor poisoned(DType type, Shape shape, std::int64_t stride = 0) {
    return place(type, shape, stride, nullptr);
  }

  /// The tensor's elements, row by row without the gaps.
  Values values(const Tensor& tensor) const {
    const std::int64_t rows = tensor.rank() == 0 ? 1 : tensor.size(0),
                       inner = rows == 0 ? 0 : tensor.count() / rows;
    const std::int64_t width = bits(tensor.dtype()) / 8;
    const std::int64_t span = rows == 0 ? 0 : (rows - 1) * tensor.stride() + inner;
    std::vector<std::byte> image(static_cast<std::size_t>(span * width));
    if (span > 0) queue_.download(image, Tensor(tensor.raw(), tensor.dtype(), Shape{span}));
    Values result;
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < inner; ++c) {
        result.push_back(decode(tensor.dtype(), image.data() + (r * tensor.stride() + c) * width));
      }
    }
    return result;
  }

  /// Fails where an operation wrote outside a tensor that this bench made, or never wrote one that it lists
  /// as written.
  void expect_guards_intact() const {
    access_.expect_all_written();
    for (const Placed& placed : placed_) {
      std::vector<std::byte> image(static_cast<std::size_t>(placed.buffer->bytes()));
      queue_.download(image, placed.buffer->tensor());
      for (std::size_t i = 0; i < image.size(); ++i) {
        if (placed.element[i] || image[i] == std::byte{0xff}) continue;
        ADD_FAILURE() << "a tensor " << placed.shape.text() << " was overrun at byte "
                      << static_cast<std::int64_t>(i) - kGuard;
        return;
      }
    }
  }

 private:
  static constexpr std::int64_t kGuard = 256;
  struct Placed {
    std::unique_ptr<Buffer> buffer;
    std::vector<bool> element;
    Shape shape;
  };

  Tensor place(DType type, Shape shape, std::int64_t stride, const Values* values) {
    const std::int64_t rows = shape.rank() == 0 ? 1 : shape[0], inner = rows == 0 ? 0 : shape.count() / rows;
    if (stride == 0) stride = inner;
    const std::int64_t width = bits(type) / 8, bytes = rows * stride * width + 2 * kGuard;
    std::vector<std::byte> image(static_cast<std::size_t>(bytes), std::byte{0xff});
    Placed placed{.buffer = std::make_unique<Buffer>(queue_, DType::u8, Shape{bytes}, MemoryKind::scratch),
                  .element = std::vector<bool>(static_cast<std::size_t>(bytes)),
                  .shape = shape};
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < inner; ++c) {
        const auto at = static_cast<std::size_t>(kGuard + (r * stride + c) * width);
        if (values) encode(type, (*values)[static_cast<std::size_t>(r * inner + c)], image.data() + at);
        for (std::int64_t b = 0; b < width; ++b) placed.element[at + static_cast<std::size_t>(b)] = true;
      }
    }
    queue_.upload(placed.buffer->tensor(), std::span<const std::byte>(image));
    access_.add(placed.buffer->tensor());
    placed_.push_back(std::move(placed));
    std::byte* data = placed_.back().buffer->data() + kGuard;
    return shape.rank() == 0 ? Tensor(data, type, shape) : Tensor(data, type, shape, stride);
  }

  Queue& queue_;
  AccessCheck access_;
  std::vector<Placed> placed_;
};

/// ‖a − b‖ / ‖b‖; infinite where a holds what is not finite and b does not.
inline double relative_error(const Values& actual, const Values& expected) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (actual[i] == expected[i]) {  // equal infinities too
      if (std::isfinite(expected[i])) norm += expected[i] * expected[i];
      continue;
    }
    const double d = actual[i] - expected[i];
    if (!std::isfinite(d)) return INFINITY;
    difference += d * d;
    norm += expected[i] * expected[i];
  }
  if (difference == 0) return 0;
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

inline void expect_close(const Values& actual, const Values& expected, double tolerance,
                         const std::string& what = {}) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  EXPECT_LE(relative_error(actual, expected), tolerance) << what;
}

/// Compares an analytic gradient with the central differences of `loss` over every element of `x`, a float64
/// tensor in host memory that `loss` reads.
inline void expect_gradient(const Tensor& x, const Values& analytic, const std::function<double()>& loss,
                            const std::string& what) {
  const std::int64_t rows = x.size(0), inner = rows == 0 ? 0 : x.count() / rows;
  Values numeric;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < inner; ++c) {
      double& element = x.data<double>()[r * x.stride() + c];
      const double kept = element, step = 1e-5;
      element = kept + step;
      const double above = loss();
      element = kept - step;
      const double below = loss();
      element = kept;
      numeric.push_back((above - below) / (2 * step));
    }
  }
  expect_close(analytic, numeric, tolerance(DType::f64).gradient, what);
}

/// Σ a·b: the loss whose gradient with respect to `a` is `b`.
inline double dot(const Values& a, const Values& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace verne::testing
