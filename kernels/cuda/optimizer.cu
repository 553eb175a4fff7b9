#include "cuda/device.cuh"
#include "verne/ops/optimizer.hpp"

namespace verne {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPackFloats = 4;
/// Blocks of the sum of squares, the same on every GPU so that its order depends on the tiles alone.
constexpr int kSumBlocks = 1024;

__device__ inline float scalar(const float* scalars, StepScalar which) {
  return scalars[static_cast<int>(which)];
}

__global__ void clip_factor_kernel(float* scalars, const double* sum_of_squares, const double* loss,
                                   double max_norm) {
  const double norm = sqrt(*sum_of_squares);
  const double factor = max_norm > 0.0 ? fmin(1.0, max_norm / (norm + 1e-6)) : 1.0;
  scalars[static_cast<int>(StepScalar::clip_factor)] = static_cast<float>(factor);
  scalars[static_cast<int>(StepScalar::grad_norm)] = static_cast<float>(norm);
  if (!isfinite(norm) || !isfinite(*loss)) scalars[static_cast<int>(StepScalar::skip)] = 1.0f;
}

struct Tile {
  std::int64_t flat, owned, count, flags;
  __device__ bool has(TileFlag flag) const { return (flags & static_cast<std::int64_t>(flag)) != 0; }
  /// Whether all of the tile's rows begin where a pack of elements may be read.
  __device__ bool aligned() const { return (flat | owned) % kPackFloats == 0; }
};
__device__ inline Tile tile_at(const std::int64_t* tiles, std::int64_t i) {
  const std::int64_t* row = tiles + i * kTileFields;
  return {row[0], row[1], row[2], row[3]};
}

template <class T>
struct AdamWArguments {
  T* weight;
  float *master, *exp_avg, *exp_avg_sq;  // no master: the weights are their own
  const float *grad, *scalars;
  const std::int64_t* tiles;
  float beta1, beta2, eps, weight_decay;
};

template <int N, class T>
__device__ void update(T* weight, float* master, float* exp_avg, float* exp_avg_sq, const float* grad,
                       float beta1, float beta2, float eps, float clip, float decay, float step, float root) {
  float w[N], m[N], v[N], g[N];
  load<N>(w, master);
  load<N>(m, exp_avg);
  load<N>(v, exp_avg_sq);
  load<N>(g, grad);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    g[j] *= clip;
    m[j] = beta1 * m[j] + (1.0f - beta1) * g[j];
    v[j] = beta2 * v[j] + (1.0f - beta2) * g[j] * g[j];
    w[j] = w[j] * decay - step * m[j] / (sqrtf(v[j]) / root + eps);
  }
  store<N>(exp_avg, m);
  store<N>(exp_avg_sq, v);
  store<N>(master, w);
  store<N>(weight, w);
}

/// Blocks of a tile; each thread has one pack of elements, so that as many accesses as can be are on their
/// way.
constexpr int kBlockElements = kThreads * kPackFloats;
constexpr int kTileBlocks = static_cast<int>(kTileElements / kBlockElements);
static_assert(kTileElements % kBlockElements == 0);

template <class T>
__global__ void __launch_bounds__(kThreads) adamw_kernel(AdamWArguments<T> a) {
  const Tile tile = tile_at(a.tiles, blockIdx.x / kTileBlocks);
  const std::int64_t begin = blockIdx.x % kTileBlocks * kBlockElements + threadIdx.x * kPackFloats;
  const std::int64_t end = tile.count < begin + kPackFloats ? tile.count : begin + kPackFloats;
  if (begin >= end || scalar(a.scalars, StepScalar::skip) != 0.0f) return;
  const float lr = scalar(a.scalars, StepScalar::learning_rate);
  const float clip = scalar(a.scalars, StepScalar::clip_factor);
  const float decay = tile.has(TileFlag::decays) ? 1.0f - lr * a.weight_decay : 1.0f;
  const float step = lr / scalar(a.scalars, StepScalar::bias_correction1);
  const float root = sqrtf(scalar(a.scalars, StepScalar::bias_correction2));
  T* weight = a.weight + tile.flat;
  float* master;
  if constexpr (sizeof(T) == sizeof(float)) {
    master = a.master ? a.master + tile.owned : reinterpret_cast<float*>(weight);
  } else {
    master = a.master + tile.owned;
  }
  float *m = a.exp_avg + tile.owned, *v = a.exp_avg_sq + tile.owned;
  const float* grad = a.grad + tile.flat;
  const auto some = [&](auto count, std::int64_t i) {
    update<decltype(count)::value>(weight + i, master + i, m + i, v + i, grad + i, a.beta1, a.beta2, a.eps,
                                   clip, decay, step, root);
  };
  if (tile.aligned() && end - begin == kPackFloats) {
    some(std::integral_constant<int, kPackFloats>{}, begin);
  } else {
    for (std::int64_t i = begin; i < end; ++i) some(std::integral_constant<int, 1>{}, i);
  }
}

__global__ void __launch_bounds__(kThreads)
    squares_kernel(double* partial, const float* grad, const std::int64_t* tiles, std::int64_t count) {
  double sum = 0.0;
  for (std::int64_t t = blockIdx.x; t < count; t += kSumBlocks) {
    const Tile tile = tile_at(tiles, t);
    if (!tile.has(TileFlag::counted)) continue;
    const float* values = grad + tile.flat;
    const std::int64_t packed = tile.flat % kPackFloats == 0 ? tile.count / kPackFloats * kPackFloats : 0;
#pragma unroll 4
    for (std::int64_t i = threadIdx.x * kPackFloats; i < packed; i += kThreads * kPackFloats) {
      float x[kPackFloats];
      load<kPackFloats>(x, values + i);
#pragma unroll
      for (int j = 0; j < kPackFloats; ++j) sum += static_cast<double>(x[j]) * static_cast<double>(x[j]);
    }
    for (std::int64_t i = packed + threadIdx.x; i < tile.count; i += kThreads) {
      const auto x = static_cast<double>(values[i]);
      sum += x * x;
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/// total += Σ partial, by one block.
__global__ void __launch_bounds__(kThreads) add_partials_kernel(double* total, const double* partial) {
  double sum = 0.0;
  for (int i = threadIdx.x; i < kSumBlocks; i += kThreads) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *total += sum;
}

}  // namespace
}  // namespace cuda

using namespace cuda;

void launch(CudaQueue& queue, const ClipFactor& op) {
  clip_factor_kernel<<<1, 1, 0, stream_of(queue)>>>(
      op.scalars.data<float>(), op.sum_of_squares.data<double>(), op.loss.data<double>(), op.max_norm);
  check_launch(ClipFactor::kName);
}

// Memory bound: 30 bytes an element with a bf16 weight (weight 2 written; master and both moments 24 read and
// written; gradient 4 read).
void launch(CudaQueue& queue, const AdamW& op) {
  if (op.tiles.size(0) == 0) return;
  for_storage(op.weight.dtype(), [&](auto storage) {
    using T = decltype(storage);
    const AdamWArguments<T> arguments{.weight = pointer<T>(op.weight),
                                      .master = pointer<float>(op.master),
                                      .exp_avg = op.exp_avg.data<float>(),
                                      .exp_avg_sq = op.exp_avg_sq.data<float>(),
                                      .grad = op.grad.data<float>(),
                                      .scalars = op.scalars.data<float>(),
                                      .tiles = op.tiles.data<std::int64_t>(),
                                      .beta1 = static_cast<float>(op.beta1),
                                      .beta2 = static_cast<float>(op.beta2),
                                      .eps = static_cast<float>(op.eps),
                                      .weight_decay = static_cast<float>(op.weight_decay)};
    const auto blocks = static_cast<unsigned>(op.tiles.size(0) * kTileBlocks);
    adamw_kernel<<<blocks, kThreads, 0, stream_of(queue)>>>(arguments);
    check_launch(AdamW::kName);
  });
}

// Memory bound: 4 bytes a value.
void launch(CudaQueue& queue, const GradientSquares& op) {
  auto* partial = reinterpret_cast<double*>(queue.workspace(bytes_of(DType::f64, kSumBlocks)));
  squares_kernel<<<kSumBlocks, kThreads, 0, stream_of(queue)>>>(
      partial, op.grad.data<float>(), op.tiles.data<std::int64_t>(), op.tiles.size(0));
  check_launch(GradientSquares::kName);
  add_partials_kernel<<<1, kThreads, 0, stream_of(queue)>>>(op.total.data<double>(), partial);
  check_launch(GradientSquares::kName);
}

}  // namespace verne
