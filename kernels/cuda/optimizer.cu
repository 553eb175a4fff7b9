#include "cuda/device.cuh"
#include "verne/ops/optimizer.hpp"

namespace verne {
namespace cuda {
namespace {

__device__ inline float scalar(const float* scalars, StepScalar which) {
  return scalars[static_cast<int>(which)];
}

__global__ void clip_factor_kernel(float* scalars, const double* sum_of_squares, double max_norm) {
  const double norm = sqrt(*sum_of_squares);
  const double factor = max_norm > 0.0 ? fmin(1.0, max_norm / (norm + 1e-6)) : 1.0;
  scalars[static_cast<int>(StepScalar::clip_factor)] = static_cast<float>(factor);
  scalars[static_cast<int>(StepScalar::grad_norm)] = static_cast<float>(norm);
  scalars[static_cast<int>(StepScalar::skip)] = isfinite(norm) ? 0.0f : 1.0f;
}

template <class T>
struct AdamWRows {
  T* weight;
  float *master, *exp_avg, *exp_avg_sq;
  const float *grad, *scalars;
  float beta1, beta2, eps, weight_decay;
  template <int N>
  __device__ void run(std::int64_t, std::int64_t i) const {
    if (scalar(scalars, StepScalar::skip) != 0.0f) return;
    const float lr = scalar(scalars, StepScalar::learning_rate);
    const float clip = scalar(scalars, StepScalar::clip_factor);
    const float decay = 1.0f - lr * weight_decay;
    const float step = lr / scalar(scalars, StepScalar::bias_correction1);
    const float root = sqrtf(scalar(scalars, StepScalar::bias_correction2));
    float w[N], m[N], v[N], g[N];
    load<N>(w, master + i);
    load<N>(m, exp_avg + i);
    load<N>(v, exp_avg_sq + i);
    load<N>(g, grad + i);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      g[j] *= clip;
      m[j] = beta1 * m[j] + (1.0f - beta1) * g[j];
      v[j] = beta2 * v[j] + (1.0f - beta2) * g[j] * g[j];
      w[j] = w[j] * decay - step * m[j] / (sqrtf(v[j]) / root + eps);
    }
    store<N>(exp_avg + i, m);
    store<N>(exp_avg_sq + i, v);
    store<N>(master + i, w);
    store<N>(weight + i, w);
  }
};

}  // namespace
}  // namespace cuda

using namespace cuda;

void launch(CudaQueue& queue, const ClipFactor& op) {
  clip_factor_kernel<<<1, 1, 0, stream_of(queue)>>>(op.scalars.data<float>(),
                                                    op.sum_of_squares.data<double>(), op.max_norm);
  check_launch(ClipFactor::kName);
}

// Memory bound: 30 bytes an element with a bf16 weight (weight 2 written; master and both moments 24 read and
// written; gradient 4 read). 98 % of an H200's bandwidth.
void launch(CudaQueue& queue, const AdamW& op) {
  const std::int64_t n = op.master.count();
  for_storage(op.weight.dtype(), [&](auto storage) {
    using T = decltype(storage);
    const auto flat = [&](const Tensor& tensor) { return tensor.view(Shape{n}); };
    const bool wide = rows_aligned(kPack<float>, {flat(op.weight), flat(op.master), flat(op.exp_avg),
                                                  flat(op.exp_avg_sq), flat(op.grad)});
    for_access<float>(wide, [&](auto access) {
      const AdamWRows<T> rows{.weight = pointer<T>(op.weight),
                              .master = op.master.data<float>(),
                              .exp_avg = op.exp_avg.data<float>(),
                              .exp_avg_sq = op.exp_avg_sq.data<float>(),
                              .grad = op.grad.data<float>(),
                              .scalars = op.scalars.data<float>(),
                              .beta1 = static_cast<float>(op.beta1),
                              .beta2 = static_cast<float>(op.beta2),
                              .eps = static_cast<float>(op.eps),
                              .weight_decay = static_cast<float>(op.weight_decay)};
      map_rows<access()>(queue, AdamW::kName, rows, 1, n);
    });
  });
}

}  // namespace verne
