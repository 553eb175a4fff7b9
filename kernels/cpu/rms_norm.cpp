#include "verne/ops/rms_norm.hpp"

#include "support.hpp"

namespace verne {
namespace {

/// sum = x + residual, rounded to storage; without a residual x itself is the normalised input.
template <class S>
const S* add_residual(const S* x, const S* residual, S* sum, std::int64_t width) {
  if (!residual) return x;
  for (std::int64_t c = 0; c < width; ++c) sum[c] = store<S>(load(x[c]) + load(residual[c]));
  return sum;
}

template <class S>
double mean_of(const S* s, std::int64_t width) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t c = 0; c < width; ++c) sum += static_cast<double>(load(s[c]));
  return sum / static_cast<double>(width);
}

template <class S>
double mean_square(const S* s, double mean, std::int64_t width) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t c = 0; c < width; ++c) {
    const double deviation = static_cast<double>(load(s[c])) - mean;
    sum += deviation * deviation;
  }
  return sum / static_cast<double>(width);
}

template <class S>
void forward(CpuQueue& queue, const RmsNormForward& op) {
  using R = Real<S>;
  const std::int64_t rows = op.x.size(0), width = op.x.size(1);
  const S* weight = op.weight.data<S>();
  for_rows(queue, rows, width, [&](std::int64_t row) {
    const S* s =
        add_residual(row_of<S>(op.x, row), row_of<S>(op.residual, row), row_of<S>(op.sum, row), width);
    const R rstd = static_cast<R>(1 / std::sqrt(mean_square(s, 0, width) + op.eps));
    op.rstd.data<R>()[row] = rstd;
    S* y = row_of<S>(op.y.data, row);
    for (std::int64_t c = 0; c < width; ++c)
      y[c] = store<S>(load(store<S>(load(s[c]) * rstd)) * load(weight[c]));
  });
}

template <class S>
void backward(CpuQueue& queue, const RmsNormBackward& op) {
  using R = Real<S>;
  const std::int64_t rows = op.s.size(0), width = op.s.size(1);
  const R* rstds = op.rstd.data<R>();
  if (op.dweight) {  // before dx, which may lie on dy
    put_gradient<R>(op.dweight, op.accumulate_dweight,
                    sum_over_rows(queue, rows, width, [&](std::int64_t row, double* sums) {
                      const S *dy = row_of<S>(op.dy, row), *s = row_of<S>(op.s, row);
                      const R rstd = rstds[row];
                      for (std::int64_t c = 0; c < width; ++c) {
                        sums[c] += static_cast<double>(load(dy[c]) * (load(s[c]) * rstd));
                      }
                    }));
  }
  const S* weight = op.weight.data<S>();
  for_rows(queue, rows, width, [&](std::int64_t row) {
    const S *dy = row_of<S>(op.dy, row), *dsum = row_of<S>(op.dsum, row), *s = row_of<S>(op.s, row);
    S* dx = row_of<S>(op.dx, row);
    const R rstd = rstds[row];
    double products = 0;  // Σ g·s
#pragma omp simd reduction(+ : products)
    for (std::int64_t c = 0; c < width; ++c) {
      products += static_cast<double>(load(dy[c]) * load(weight[c])) * static_cast<double>(load(s[c]));
    }
    // dx = rstd·(g − s·rstd²·mean(g·s)) + dsum
    const R pull = static_cast<R>(static_cast<double>(rstd) * static_cast<double>(rstd) * products /
                                  static_cast<double>(width));
#pragma omp simd
    for (std::int64_t c = 0; c < width; ++c) {
      const R gradient = rstd * (load(dy[c]) * load(weight[c]) - load(s[c]) * pull);
      dx[c] = store<S>(dsum ? gradient + load(dsum[c]) : gradient);
    }
  });
}

template <class S>
void forward(CpuQueue& queue, const LayerNormForward& op) {
  using R = Real<S>;
  const std::int64_t rows = op.x.size(0), width = op.x.size(1);
  const S *weight = op.weight.data<S>(), *bias = op.bias.data<S>();
  const R offset = static_cast<R>(op.weight_offset);
  for_rows(queue, rows, width, [&](std::int64_t row) {
    const S* s =
        add_residual(row_of<S>(op.x, row), row_of<S>(op.residual, row), row_of<S>(op.sum, row), width);
    const double exact_mean = mean_of(s, width);
    const R mean = static_cast<R>(exact_mean);
    const R rstd = static_cast<R>(1 / std::sqrt(mean_square(s, exact_mean, width) + op.eps));
    op.mean.data<R>()[row] = mean;
    op.rstd.data<R>()[row] = rstd;
    S* y = row_of<S>(op.y.data, row);
    for (std::int64_t c = 0; c < width; ++c) {
      y[c] = store<S>((load(s[c]) - mean) * rstd * (load(weight[c]) + offset) + load(bias[c]));
    }
  });
}

template <class S>
void backward(CpuQueue& queue, const LayerNormBackward& op) {
  using R = Real<S>;
  const std::int64_t rows = op.s.size(0), width = op.s.size(1);
  const R *means = op.mean.data<R>(), *rstds = op.rstd.data<R>();
  if (op.dweight) {  // before dx, which may lie on dy
    std::vector<double> sums = sum_over_rows(queue, rows, 2 * width, [&](std::int64_t row, double* both) {
      const S *dy = row_of<S>(op.dy, row), *s = row_of<S>(op.s, row);
      const R mean = means[row], rstd = rstds[row];
      for (std::int64_t c = 0; c < width; ++c) {
        both[c] += static_cast<double>(load(dy[c]) * ((load(s[c]) - mean) * rstd));
        both[width + c] += static_cast<double>(load(dy[c]));
      }
    });
    put_gradient<R>(op.dbias, op.accumulate_dbias, {sums.begin() + width, sums.end()});
    sums.resize(static_cast<std::size_t>(width));
    put_gradient<R>(op.dweight, op.accumulate_dweight, sums);
  }
  const S* weight = op.weight.data<S>();
  const R offset = static_cast<R>(op.weight_offset);
  for_rows(queue, rows, width, [&](std::int64_t row) {
    const S *dy = row_of<S>(op.dy, row), *dsum = row_of<S>(op.dsum, row), *s = row_of<S>(op.s, row);
    S* dx = row_of<S>(op.dx, row);
    const R mean = means[row], rstd = rstds[row];
    double gradients = 0, products = 0;  // Σ g, Σ g·n
#pragma omp simd reduction(+ : gradients, products)
    for (std::int64_t c = 0; c < width; ++c) {
      const R g = load(dy[c]) * (load(weight[c]) + offset);
      gradients += static_cast<double>(g);
      products += static_cast<double>(g) * static_cast<double>((load(s[c]) - mean) * rstd);
    }
    const R mean_g = static_cast<R>(gradients / static_cast<double>(width));
    const R mean_gn = static_cast<R>(products / static_cast<double>(width));
    // dx = rstd·(g − mean(g) − n·mean(g·n)) + dsum
#pragma omp simd
    for (std::int64_t c = 0; c < width; ++c) {
      const R g = load(dy[c]) * (load(weight[c]) + offset), n = (load(s[c]) - mean) * rstd;
      const R gradient = rstd * (g - mean_g - n * mean_gn);
      dx[c] = store<S>(dsum ? gradient + load(dsum[c]) : gradient);
    }
  });
}

}  // namespace

void launch(CpuQueue& queue, const RmsNormForward& op) {
  with_storage(op.x.dtype(), [&](auto s) { forward<decltype(s)>(queue, op); });
}
void launch(CpuQueue& queue, const RmsNormBackward& op) {
  with_storage(op.s.dtype(), [&](auto s) { backward<decltype(s)>(queue, op); });
}
void launch(CpuQueue& queue, const LayerNormForward& op) {
  with_storage(op.x.dtype(), [&](auto s) { forward<decltype(s)>(queue, op); });
}
void launch(CpuQueue& queue, const LayerNormBackward& op) {
  with_storage(op.s.dtype(), [&](auto s) { backward<decltype(s)>(queue, op); });
}

}  // namespace verne
