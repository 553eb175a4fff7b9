#include "verne/ops/rope.hpp"

#include "support.hpp"

namespace verne {
namespace {

/// Rows of the tables for one token.
template <class R>
struct Rotation {
  const R *cos, *sin;
  std::int64_t half;
};

template <class R>
Rotation<R> rotation_of(const Tensor& cos, const Tensor& sin, const Tensor& positions, std::int64_t token) {
  const std::int64_t position = positions.data<std::int32_t>()[token], half = cos.size(1);
  require(position >= 0 && position < cos.size(0), "token {} has position {} of {}", token, position,
          cos.size(0));
  return {cos.data<R>() + position * half, sin.data<R>() + position * half, half};
}

template <class S>
void forward(CpuQueue& queue, const RopeForward& op) {
  using R = Real<S>;
  const std::int64_t tokens = op.x.size(0), heads = op.x.size(1), dim = op.x.size(2);
  const S* weight = op.weight ? op.weight.data<S>() : nullptr;
  for_rows(queue, tokens, heads * dim, [&](std::int64_t token) {
    const auto [cos, sin, half] = rotation_of<R>(op.cos, op.sin, op.positions, token);
    std::vector<R> n(static_cast<std::size_t>(dim));
    for (std::int64_t head = 0; head < heads; ++head) {
      const S* x = op.x.data<S>() + token * op.x.stride() + head * dim;
      S* y = op.y.data<S>() + token * op.y.stride() + head * dim;
      for (std::int64_t c = 0; c < dim; ++c) n[static_cast<std::size_t>(c)] = load(x[c]);
      if (weight) {
        double squares = 0;
        for (const R value : n) squares += static_cast<double>(value) * static_cast<double>(value);
        const R rstd = static_cast<R>(1 / std::sqrt(squares / static_cast<double>(dim) + op.eps));
        op.rstd.data<R>()[token * heads + head] = rstd;
        for (std::int64_t c = 0; c < dim; ++c) {
          R& value = n[static_cast<std::size_t>(c)];
          value = load(store<S>(load(store<S>(value * rstd)) * load(weight[c])));
        }
      }
      const R *low = n.data(), *high = n.data() + half;
      for (std::int64_t j = 0; j < half; ++j) {
        y[j] = store<S>(low[j] * cos[j] - high[j] * sin[j]);
        y[j + half] = store<S>(high[j] * cos[j] + low[j] * sin[j]);
      }
      for (std::int64_t c = 2 * half; c < dim; ++c) y[c] = store<S>(n[static_cast<std::size_t>(c)]);
    }
  });
}

/// dn: dy rotated by the opposite angle.
template <class S>
void rotate_back(const S* dy, const Rotation<Real<S>>& rotation, std::vector<Real<S>>& dn) {
  const auto [cos, sin, half] = rotation;
  for (std::int64_t j = 0; j < half; ++j) {
    const Real<S> low = load(dy[j]), high = load(dy[j + half]);
    dn[static_cast<std::size_t>(j)] = low * cos[j] + high * sin[j];
    dn[static_cast<std::size_t>(j + half)] = high * cos[j] - low * sin[j];
  }
  for (std::size_t c = static_cast<std::size_t>(2 * half); c < dn.size(); ++c) dn[c] = load(dy[c]);
}

template <class S>
void backward(CpuQueue& queue, const RopeBackward& op) {
  using R = Real<S>;
  const std::int64_t tokens = op.dy.size(0), heads = op.dy.size(1), dim = op.dy.size(2);
  const auto width = static_cast<std::size_t>(dim);
  const auto head_of = [dim](const Tensor& tensor, std::int64_t token, std::int64_t head) {
    return tensor.data<S>() + token * tensor.stride() + head * dim;
  };
  if (op.dweight) {  // before dx, which may lie on dy
    const std::vector<double> sums = sum_over_rows(queue, tokens, dim, [&](std::int64_t token, double* sum) {
      const Rotation<R> rotation = rotation_of<R>(op.cos, op.sin, op.positions, token);
      std::vector<R> dn(width);
      for (std::int64_t head = 0; head < heads; ++head) {
        rotate_back(head_of(op.dy, token, head), rotation, dn);
        const S* x = head_of(op.x, token, head);
        const R rstd = op.rstd.data<R>()[token * heads + head];
        for (std::size_t c = 0; c < width; ++c) sum[c] += static_cast<double>(dn[c] * (load(x[c]) * rstd));
      }
    });
    R* dweight = op.dweight.data<R>();
    for (std::size_t c = 0; c < width; ++c) {
      dweight[c] = static_cast<R>(
          (op.accumulate_dweight == Accumulate::yes ? static_cast<double>(dweight[c]) : 0.0) + sums[c]);
    }
  }
  const S* weight = op.weight ? op.weight.data<S>() : nullptr;
  for_rows(queue, tokens, heads * dim, [&](std::int64_t token) {
    const Rotation<R> rotation = rotation_of<R>(op.cos, op.sin, op.positions, token);
    std::vector<R> dn(width);
    for (std::int64_t head = 0; head < heads; ++head) {
      rotate_back(head_of(op.dy, token, head), rotation, dn);
      S* dx = head_of(op.dx, token, head);
      if (!weight) {
        for (std::size_t c = 0; c < width; ++c) dx[c] = store<S>(dn[c]);
        continue;
      }
      const S* x = head_of(op.x, token, head);
      const R rstd = op.rstd.data<R>()[token * heads + head];
      double products = 0;  // Σ g·x
      for (std::size_t c = 0; c < width; ++c) {
        dn[c] *= load(weight[c]);
        products += static_cast<double>(dn[c]) * static_cast<double>(load(x[c]));
      }
      // dx = rstd·(g − x·rstd²·mean(g·x))
      const R pull = static_cast<R>(static_cast<double>(rstd) * static_cast<double>(rstd) * products /
                                    static_cast<double>(dim));
      for (std::size_t c = 0; c < width; ++c) dx[c] = store<S>(rstd * (dn[c] - load(x[c]) * pull));
    }
  });
}

}  // namespace

void launch(CpuQueue& queue, const RopeForward& op) {
  with_storage(op.x.dtype(), [&](auto s) { forward<decltype(s)>(queue, op); });
}
void launch(CpuQueue& queue, const RopeBackward& op) {
  with_storage(op.dy.dtype(), [&](auto s) { backward<decltype(s)>(queue, op); });
}

}  // namespace verne
