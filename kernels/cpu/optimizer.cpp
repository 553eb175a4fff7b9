#include "verne/ops/optimizer.hpp"

#include "support.hpp"

namespace verne {
namespace {

float& scalar(const Tensor& scalars, StepScalar which) {
  return scalars.data<float>()[static_cast<int>(which)];
}

struct Tile {
  std::int64_t flat, owned, count, flags;
  bool has(TileFlag flag) const { return (flags & static_cast<std::int64_t>(flag)) != 0; }
};

Tile tile_at(const Tensor& tiles, std::int64_t i) {
  const std::int64_t* row = tiles.data<std::int64_t>() + i * kTileFields;
  return {row[0], row[1], row[2], row[3]};
}

template <class W>
void update(CpuQueue& queue, const AdamW& op) {
  const auto beta1 = static_cast<float>(op.beta1), beta2 = static_cast<float>(op.beta2),
             eps = static_cast<float>(op.eps);
  const auto rest1 = static_cast<float>(1 - op.beta1), rest2 = static_cast<float>(1 - op.beta2);
  const float learning_rate = scalar(op.scalars, StepScalar::learning_rate);
  const float clip_factor = scalar(op.scalars, StepScalar::clip_factor);
  const float step_size = learning_rate / scalar(op.scalars, StepScalar::bias_correction1);
  const float correction2 = std::sqrt(scalar(op.scalars, StepScalar::bias_correction2));
  const auto shrink = static_cast<float>(1 - static_cast<double>(learning_rate) * op.weight_decay);
  queue.parallel_for(op.tiles.size(0), 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) {
      const Tile tile = tile_at(op.tiles, t);
      W* weight = op.weight.data<W>() + tile.flat;
      float* master = op.master ? op.master.data<float>() + tile.owned : op.weight.data<float>() + tile.flat;
      float *m = op.exp_avg.data<float>() + tile.owned, *v = op.exp_avg_sq.data<float>() + tile.owned;
      const float* grad = op.grad.data<float>() + tile.flat;
      const float decay = tile.has(TileFlag::decays) ? shrink : 1.0f;
#pragma omp simd
      for (std::int64_t i = 0; i < tile.count; ++i) {
        const float g = grad[i] * clip_factor;
        m[i] = beta1 * m[i] + rest1 * g;
        v[i] = beta2 * v[i] + rest2 * g * g;
        const float updated = master[i] * decay - step_size * (m[i] / (std::sqrt(v[i]) / correction2 + eps));
        master[i] = updated;
        weight[i] = store<W>(updated);
      }
    }
  });
}

}  // namespace

void launch(CpuQueue&, const ClipFactor& op) {
  const double norm = std::sqrt(op.sum_of_squares.data<double>()[0]);
  scalar(op.scalars, StepScalar::grad_norm) = static_cast<float>(norm);
  scalar(op.scalars, StepScalar::clip_factor) =
      op.max_norm > 0 ? static_cast<float>(std::min(1.0, op.max_norm / (norm + 1e-6))) : 1.0f;
  if (!std::isfinite(norm) || !std::isfinite(op.loss.data<double>()[0]))
    scalar(op.scalars, StepScalar::skip) = 1.0f;
}

void launch(CpuQueue& queue, const AdamW& op) {
  if (scalar(op.scalars, StepScalar::skip) != 0) return;
  if (op.weight.dtype() == DType::bf16) return update<bf16>(queue, op);
  update<float>(queue, op);
}

void launch(CpuQueue& queue, const GradientSquares& op) {
  // Tile by tile, then in the tiles' order: the sum does not depend on threads.
  std::vector<double> sums(static_cast<std::size_t>(op.tiles.size(0)));
  queue.parallel_for(op.tiles.size(0), 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) {
      const Tile tile = tile_at(op.tiles, t);
      if (!tile.has(TileFlag::counted)) continue;
      const float* grad = op.grad.data<float>() + tile.flat;
      double sum = 0;
#pragma omp simd reduction(+ : sum)
      for (std::int64_t i = 0; i < tile.count; ++i)
        sum += static_cast<double>(grad[i]) * static_cast<double>(grad[i]);
      sums[static_cast<std::size_t>(t)] = sum;
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  op.total.data<double>()[0] += total;
}

}  // namespace verne
