#include "verne/ops/activation.hpp"

#include "support.hpp"

namespace verne {
namespace {

/// σ(x) = 1/(1 + e^−x)
template <class R>
R sigmoid(R x) {
  return 1 / (1 + exponential(-x));
}

template <class S>
void forward(CpuQueue& queue, const SwiGluForward& op) {
  using R = Real<S>;
  const std::int64_t width = op.y.data.size(1);
  for_rows(queue, op.y.data.size(0), width, [&](std::int64_t row) {
    const S *gate = op.gate_up.data<S>() + row * 2 * width, *up = gate + width;
    S* y = op.y.data.data<S>() + row * width;
#pragma omp simd
    for (std::int64_t c = 0; c < width; ++c) {
      const R g = load(gate[c]);
      y[c] = store<S>(g * sigmoid(g) * load(up[c]));
    }
  });
}

template <class S>
void backward(CpuQueue& queue, const SwiGluBackward& op) {
  using R = Real<S>;
  const std::int64_t width = op.dy.size(1);
  for_rows(queue, op.dy.size(0), width, [&](std::int64_t row) {
    const S *gate = op.gate_up.data<S>() + row * 2 * width, *up = gate + width;
    const S* dy = op.dy.data<S>() + row * width;
    S *dgate = op.dgate_up.data<S>() + row * 2 * width, *dup = dgate + width;
#pragma omp simd
    for (std::int64_t c = 0; c < width; ++c) {
      const R g = load(gate[c]), u = load(up[c]), d = load(dy[c]), s = sigmoid(g);
      dgate[c] = store<S>(d * u * s * (1 + g * (1 - s)));
      dup[c] = store<S>(d * (g * s));
    }
  });
}

template <class S>
void forward(CpuQueue& queue, const SquaredReluForward& op) {
  using R = Real<S>;
  const S* x = op.x.data<S>();
  S* y = op.y.data.data<S>();
  for_chunks(queue, op.x.count(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const R value = load(x[i]);
      y[i] = store<S>(value < 0 ? R{0} : value * value);
    }
  });
}

template <class S>
void backward(CpuQueue& queue, const SquaredReluBackward& op) {
  using R = Real<S>;
  const S *x = op.x.data<S>(), *dy = op.dy.data<S>();
  S* dx = op.dx.data<S>();
  for_chunks(queue, op.x.count(), [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) {
      const R value = load(x[i]);
      dx[i] = store<S>(value < 0 ? R{0} : 2 * value * load(dy[i]));
    }
  });
}

}  // namespace

void launch(CpuQueue& queue, const SwiGluForward& op) {
  with_storage(op.y.data.dtype(), [&](auto s) { forward<decltype(s)>(queue, op); });
}
void launch(CpuQueue& queue, const SwiGluBackward& op) {
  with_storage(op.dy.dtype(), [&](auto s) { backward<decltype(s)>(queue, op); });
}
void launch(CpuQueue& queue, const SquaredReluForward& op) {
  with_storage(op.x.dtype(), [&](auto s) { forward<decltype(s)>(queue, op); });
}
void launch(CpuQueue& queue, const SquaredReluBackward& op) {
  with_storage(op.x.dtype(), [&](auto s) { backward<decltype(s)>(queue, op); });
}

}  // namespace verne
