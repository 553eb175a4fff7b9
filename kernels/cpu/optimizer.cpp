#include "verne/ops/optimizer.hpp"

#include "support.hpp"

namespace verne {
namespace {

float& scalar(const Tensor& scalars, StepScalar which) {
  return scalars.data<float>()[static_cast<int>(which)];
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
  const auto decay = static_cast<float>(1 - static_cast<double>(learning_rate) * op.weight_decay);
  W* weight = op.weight.data<W>();
  float *master = op.master.data<float>(), *m = op.exp_avg.data<float>(), *v = op.exp_avg_sq.data<float>();
  const float* grad = op.grad.data<float>();
  for_chunks(queue, op.weight.count(), [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) {
      const float g = grad[i] * clip_factor;
      m[i] = beta1 * m[i] + rest1 * g;
      v[i] = beta2 * v[i] + rest2 * g * g;
      const float updated = master[i] * decay - step_size * (m[i] / (std::sqrt(v[i]) / correction2 + eps));
      master[i] = updated;
      weight[i] = store<W>(updated);
    }
  });
}

}  // namespace

void launch(CpuQueue&, const ClipFactor& op) {
  const double norm = std::sqrt(op.sum_of_squares.data<double>()[0]);
  scalar(op.scalars, StepScalar::grad_norm) = static_cast<float>(norm);
  scalar(op.scalars, StepScalar::clip_factor) =
      op.max_norm > 0 ? static_cast<float>(std::min(1.0, op.max_norm / (norm + 1e-6))) : 1.0f;
  scalar(op.scalars, StepScalar::skip) = std::isfinite(norm) ? 0.0f : 1.0f;
}

void launch(CpuQueue& queue, const AdamW& op) {
  if (scalar(op.scalars, StepScalar::skip) != 0) return;
  if (op.weight.dtype() == DType::bf16) return update<bf16>(queue, op);
  update<float>(queue, op);
}

}  // namespace verne
