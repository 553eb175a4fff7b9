#include "verne/ops/cross_entropy.hpp"

#include <limits>

#include "support.hpp"

namespace verne {
namespace {

template <class S>
Real<S> largest(const S* x, std::int64_t count) {
  Real<S> most = -std::numeric_limits<Real<S>>::infinity();
#pragma omp simd reduction(max : most)
  for (std::int64_t c = 0; c < count; ++c) {
    const Real<S> value = load(x[c]);
    most = value > most ? value : most;
  }
  return most;
}

/// Σ exp(x − shift): runs of 512 in the arithmetic type, the runs in float64.
template <class S>
double sum_of_exponentials(const S* x, Real<S> shift, std::int64_t count) {
  constexpr std::int64_t kRun = 512;
  double total = 0;
  for (std::int64_t begin = 0; begin < count; begin += kRun) {
    const std::int64_t end = std::min(count, begin + kRun);
    Real<S> sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t c = begin; c < end; ++c) sum += exponential(load(x[c]) - shift);
    total += static_cast<double>(sum);
  }
  return total;
}

template <class S>
void statistics(CpuQueue& queue, const CrossEntropyStatistics& op) {
  using R = Real<S>;
  const std::int64_t columns = op.logits.size(1);
  for_rows(queue, op.logits.size(0), columns, [&](std::int64_t t) {
    const S* x = op.logits.data<S>() + t * columns;
    R* stats = op.stats.data<R>() + 3 * t;
    const std::int64_t target = op.targets.data<std::int32_t>()[t] - op.first_column;
    const R most = largest(x, op.valid_columns);
    stats[0] = most;
    // A row of −inf alone has no finite shift: its exponentials are zeros all the same.
    const R shift = most == -std::numeric_limits<R>::infinity() ? R{0} : most;
    stats[1] = static_cast<R>(sum_of_exponentials(x, shift, op.valid_columns));
    stats[2] =
        target >= 0 && target < op.valid_columns ? load(x[target]) : -std::numeric_limits<R>::infinity();
  });
}

template <class R>
void combine(CpuQueue& queue, const CrossEntropyCombine& op) {
  const std::int64_t blocks = op.stats.size(0), tokens = op.stats.size(1);
  for_rows(queue, tokens, 16 * blocks, [&](std::int64_t t) {
    const auto block = [&](std::int64_t b) { return op.stats.data<R>() + (b * tokens + t) * 3; };
    double most = -std::numeric_limits<double>::infinity(), target = most, sum = 0;
    for (std::int64_t b = 0; b < blocks; ++b) {
      most = std::max(most, static_cast<double>(block(b)[0]));
      // One block holds the target; NaN in it must come through.
      if (block(b)[2] != -std::numeric_limits<R>::infinity()) target = static_cast<double>(block(b)[2]);
    }
    for (std::int64_t b = 0; b < blocks; ++b) {
      // A block without columns adds nothing, whatever the others' largest logit.
      const double largest_here = static_cast<double>(block(b)[0]),
                   sum_here = static_cast<double>(block(b)[1]);
      sum += sum_here == 0 ? 0 : sum_here * std::exp(largest_here - most);
    }
    const double log_sum_exp = most + std::log(sum);
    op.log_sum_exp.data<R>()[t] = static_cast<R>(log_sum_exp);
    op.log_probability.data<R>()[t] = static_cast<R>(target - log_sum_exp);
  });
}

template <class S>
void backward(CpuQueue& queue, const CrossEntropyBackward& op) {
  using R = Real<S>;
  const std::int64_t columns = op.logits.size(1), valid = op.valid_columns;
  const R scale = op.scale.data<R>()[0];
  for_rows(queue, op.logits.size(0), columns, [&](std::int64_t t) {
    const S* x = op.logits.data<S>() + t * columns;
    S* dx = op.dlogits.data<S>() + t * columns;
    if (op.loss_mask.data<std::uint8_t>()[t] == 0) {
      std::fill(dx, dx + columns, S(0));
      return;
    }
    const R log_sum_exp = op.log_sum_exp.data<R>()[t],
            factor = static_cast<R>(op.loss_mask.data<std::uint8_t>()[t]) * scale;
    const std::int64_t target = op.targets.data<std::int32_t>()[t] - op.first_column;
    const bool here = target >= 0 && target < valid;
    const R at_target = here ? factor * std::expm1(load(x[target]) - log_sum_exp) : R{0};
#pragma omp simd
    for (std::int64_t c = 0; c < valid; ++c) dx[c] = store<S>(factor * exponential(load(x[c]) - log_sum_exp));
    if (here) dx[target] = store<S>(at_target);
    std::fill(dx + valid, dx + columns, S(0));
  });
}

}  // namespace

void launch(CpuQueue& queue, const CrossEntropyStatistics& op) {
  with_storage(op.logits.dtype(), [&](auto s) { statistics<decltype(s)>(queue, op); });
}
void launch(CpuQueue& queue, const CrossEntropyCombine& op) {
  if (op.stats.dtype() == DType::f64) return combine<double>(queue, op);
  combine<float>(queue, op);
}
void launch(CpuQueue& queue, const CrossEntropyBackward& op) {
  with_storage(op.logits.dtype(), [&](auto s) { backward<decltype(s)>(queue, op); });
}

}  // namespace verne
