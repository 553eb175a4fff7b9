#include "verne/ops/elementwise.hpp"

#include "support.hpp"

namespace verne {
namespace {

/// float16 in memory.
struct Half {
  std::uint16_t bits;
};
float load(Half stored) {
  return f16_to_float(stored.bits);
}
using verne::load;

template <class S, class R>
S rounded(R value) {
  if constexpr (std::is_same_v<S, Half>) {
    return {float_to_f16(static_cast<float>(value))};
  } else if constexpr (std::is_same_v<S, bf16>) {
    return bf16(static_cast<float>(value));
  } else {
    return static_cast<S>(value);
  }
}

template <class Body>
void with_any_float(DType type, const Body& body) {
  if (type == DType::f16) return body(Half{});
  with_storage(type, body);
}

/// body(row, begin, end) for runs of elements that lie side by side in every tensor: pieces of the whole
/// where all are contiguous, else the rows of the leading axis.
template <class Body>
void for_runs(CpuQueue& queue, std::initializer_list<Tensor> tensors, const Body& body) {
  const Tensor& first = *tensors.begin();
  if (std::all_of(tensors.begin(), tensors.end(), [](const Tensor& one) { return one.contiguous(); })) {
    for_chunks(queue, first.count(), [&](std::int64_t begin, std::int64_t end) { body(0, begin, end); });
    return;
  }
  const std::int64_t width = first.size(0) == 0 ? 0 : first.count() / first.size(0);
  for_rows(queue, first.size(0), width, [&](std::int64_t row) { body(row, 0, width); });
}

/// As row_of, of float16 too.
template <class S>
S* any_row_of(const Tensor& tensor, std::int64_t row) {
  return reinterpret_cast<S*>(tensor.raw()) + row * tensor.stride();
}

}  // namespace

void launch(CpuQueue& queue, const Fill& op) {
  with_any_float(op.y.dtype(), [&](auto s) {
    using S = decltype(s);
    const S value = rounded<S>(op.value);
    for_runs(queue, {op.y}, [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
      S* y = any_row_of<S>(op.y, row);
      std::fill(y + begin, y + end, value);
    });
  });
}

void launch(CpuQueue& queue, const Cast& op) {
  with_any_float(op.x.dtype(), [&](auto from) {
    with_any_float(op.y.dtype(), [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      for_runs(queue, {op.x, op.y}, [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
        const From* x = any_row_of<From>(op.x, row);
        To* y = any_row_of<To>(op.y, row);
        for (std::int64_t i = begin; i < end; ++i) {
          if constexpr (std::is_same_v<From, To>) {
            y[i] = x[i];
          } else {
            y[i] = rounded<To>(load(x[i]));
          }
        }
      });
    });
  });
}

void launch(CpuQueue& queue, const Add& op) {
  with_storage(op.y.dtype(), [&](auto s) {
    using S = decltype(s);
    const S *a = op.a.data<S>(), *b = op.b.data<S>();
    S* y = op.y.data<S>();
    for_chunks(queue, op.y.count(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) y[i] = store<S>(load(a[i]) + load(b[i]));
    });
  });
}

void launch(CpuQueue& queue, const RandomNormal& op) {
  const std::int64_t rows = op.y.rank() == 1 ? 1 : op.y.size(0), columns = op.y.size(op.y.rank() - 1);
  with_storage(op.y.dtype(), [&](auto s) {
    using S = decltype(s);
    const auto mean = static_cast<float>(op.mean), deviation = static_cast<float>(op.deviation);
    for_rows(queue, rows, 64 * columns, [&](std::int64_t row) {
      S* y = any_row_of<S>(op.y, row);
      for (std::int64_t c = 0; c < columns; ++c) {
        const std::int64_t element = (op.first_row + row) * op.row_length + op.first_column + c;
        const RandomWords words = philox(op.site, static_cast<std::uint64_t>(element));
        const float radius = std::sqrt(-2.0f * std::log(uniform_open(words.word[0])));
        const float normal = radius * std::cos(6.2831853f * uniform_open(words.word[1]));
        y[c] = rounded<S>(mean + deviation * normal);
      }
    });
  });
}

}  // namespace verne
