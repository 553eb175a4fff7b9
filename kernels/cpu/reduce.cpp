#include "verne/ops/reduce.hpp"

#include "support.hpp"

namespace verne {
namespace {

template <class R>
double masked_sum(CpuQueue& queue, const MaskedSum& op) {
  const R* values = op.values.data<R>();
  const std::uint8_t* mask = op.mask.data<std::uint8_t>();
  return sum_over_chunks(queue, op.values.count(), [&](std::int64_t begin, std::int64_t end) {
    double sum = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      // What is masked may be infinite: a target outside the vocabulary.
      if (mask[i] != 0) sum += static_cast<double>(values[i]) * mask[i];
    }
    return sum;
  });
}

template <class R>
double sum_of_squares(CpuQueue& queue, const SumOfSquares& op) {
  const R* values = op.values.data<R>();
  return sum_over_chunks(queue, op.values.count(), [&](std::int64_t begin, std::int64_t end) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = begin; i < end; ++i)
      sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    return sum;
  });
}

}  // namespace

void launch(CpuQueue& queue, const MaskedSum& op) {
  const bool wide = op.values.dtype() == DType::f64;
  op.total.data<double>()[0] +=
      op.factor * (wide ? masked_sum<double>(queue, op) : masked_sum<float>(queue, op));
}

void launch(CpuQueue& queue, const SumOfSquares& op) {
  const bool wide = op.values.dtype() == DType::f64;
  op.total.data<double>()[0] += wide ? sum_of_squares<double>(queue, op) : sum_of_squares<float>(queue, op);
}

}  // namespace verne
