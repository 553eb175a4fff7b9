#include "cuda/device.cuh"
#include "cuda/partials.cuh"
#include "verne/ops/rope.hpp"

namespace verne {
namespace cuda {
namespace {

constexpr int kThreads = 256;

/// Writes the rotated pair (low, high) at columns `column` and `half + column`; sign −1 rotates back.
template <int N, class T>
__device__ void rotate_pair(T* y, std::int64_t column, std::int64_t half, const float* cos, const float* sin,
                            float sign, const float (&low)[N], const float (&high)[N]) {
  float c[N], s[N], first[N], second[N];
  load<N>(c, cos + column);
  load<N>(s, sin + column);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    s[i] *= sign;
    first[i] = low[i] * c[i] - high[i] * s[i];
    second[i] = high[i] * c[i] + low[i] * s[i];
  }
  store<N>(y + column, first);
  store<N>(y + half + column, second);
}

/// Sum over the kLanes lanes that share a head.
template <int kLanes>
__device__ float lanes_sum(float x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

template <class T>
struct Forward {
  T* y;
  float* rstd;
  const T *x, *weight;
  const float *cos, *sin;
  const std::int32_t* positions;
  std::int64_t y_stride, x_stride, tokens, heads, head_dim, half;
  float eps;
};

template <class T, int kVector, int kLanes>
__global__ void __launch_bounds__(kThreads) rope_forward(Forward<T> a) {
  const std::int64_t group = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
  const std::int64_t lane = threadIdx.x % kLanes;
  const bool active = group < a.tokens * a.heads;
  const std::int64_t token = active ? group / a.heads : 0, head = active ? group - token * a.heads : 0;
  const T* x = a.x + token * a.x_stride + head * a.head_dim;
  float rstd = 1.0f;
  if (a.weight) {
    float squares = 0.0f;
    for (std::int64_t column = lane * kVector; column < a.head_dim; column += kLanes * kVector) {
      float value[kVector];
      load<kVector>(value, x + column);
#pragma unroll
      for (int i = 0; i < kVector; ++i) squares += value[i] * value[i];
    }
    rstd = rsqrtf(lanes_sum<kLanes>(squares) / static_cast<float>(a.head_dim) + a.eps);
    if (active && lane == 0) a.rstd[group] = rstd;
  }
  if (!active) return;
  const auto normalised = [&](std::int64_t column, float(&n)[kVector]) {
    load<kVector>(n, x + column);
    if (!a.weight) return;
    float weight[kVector];
    load<kVector>(weight, a.weight + column);
#pragma unroll
    for (int i = 0; i < kVector; ++i) n[i] = rounded<T>(rounded<T>(n[i] * rstd) * weight[i]);
  };
  T* y = a.y + token * a.y_stride + head * a.head_dim;
  const float* cos = a.cos + a.positions[token] * a.half;
  const float* sin = a.sin + a.positions[token] * a.half;
  for (std::int64_t column = lane * kVector; column < a.half; column += kLanes * kVector) {
    float low[kVector], high[kVector];
    normalised(column, low);
    normalised(a.half + column, high);
    rotate_pair<kVector>(y, column, a.half, cos, sin, 1.0f, low, high);
  }
  for (std::int64_t column = 2 * a.half + lane * kVector; column < a.head_dim; column += kLanes * kVector) {
    float value[kVector];
    normalised(column, value);
    store<kVector>(y + column, value);
  }
}

template <class T>
struct Backward {
  T* dx;
  float* partial;  // [blocks, head_dim]; null where frozen or without a norm
  const T *dy, *x, *weight;
  const float *rstd, *cos, *sin;
  const std::int32_t* positions;
  std::int64_t dx_stride, dy_stride, x_stride, tokens, heads, head_dim, half;
};

/// Blocks take heads block, block + blocks, …; each lane sums dweight for its own columns in shared memory.
template <class T, int kVector, int kLanes>
__global__ void __launch_bounds__(kThreads) rope_backward(Backward<T> a) {
  extern __shared__ __align__(16) float sums[];  // [groups of the block, head_dim]
  constexpr int kGroups = kThreads / kLanes;
  const std::int64_t lane = threadIdx.x % kLanes, local = threadIdx.x / kLanes;
  float* dweight = sums + local * a.head_dim;
  // A lane's columns: its pair units, then its units that pass through.
  const auto for_units = [&](auto&& pair, auto&& single) {
    for (std::int64_t column = lane * kVector; column < a.half; column += kLanes * kVector) pair(column);
    for (std::int64_t column = 2 * a.half + lane * kVector; column < a.head_dim; column += kLanes * kVector)
      single(column);
  };
  if (a.partial) {
    const float zero[kVector] = {};
    for_units(
        [&](std::int64_t column) {
          store<kVector>(dweight + column, zero);
          store<kVector>(dweight + a.half + column, zero);
        },
        [&](std::int64_t column) { store<kVector>(dweight + column, zero); });
  }
  const std::int64_t count = a.tokens * a.heads;
  for (std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kGroups; first < count;
       first += static_cast<std::int64_t>(gridDim.x) * kGroups) {
    const bool active = first + local < count;
    const std::int64_t group = active ? first + local : first;
    const std::int64_t token = group / a.heads, head = group - token * a.heads;
    const T* dy = a.dy + token * a.dy_stride + head * a.head_dim;
    T* dx = a.dx + token * a.dx_stride + head * a.head_dim;
    const float* cos = a.cos + a.positions[token] * a.half;
    const float* sin = a.sin + a.positions[token] * a.half;
    if (!a.weight) {
      if (active) {
        for_units(
            [&](std::int64_t column) {
              float low[kVector], high[kVector];
              load<kVector>(low, dy + column);
              load<kVector>(high, dy + a.half + column);
              rotate_pair<kVector>(dx, column, a.half, cos, sin, -1.0f, low, high);
            },
            [&](std::int64_t column) {
              float value[kVector];
              load<kVector>(value, dy + column);
              store<kVector>(dx + column, value);
            });
      }
      continue;
    }
    const T* x = a.x + token * a.x_stride + head * a.head_dim;
    const float rstd = a.rstd[group];
    // dn = the rotation undone, in float32
    const auto unrotated = [&](std::int64_t column, float(&low)[kVector], float(&high)[kVector]) {
      float c[kVector], s[kVector];
      load<kVector>(low, dy + column);
      load<kVector>(high, dy + a.half + column);
      load<kVector>(c, cos + column);
      load<kVector>(s, sin + column);
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const float l = low[i], h = high[i];
        low[i] = l * c[i] + h * s[i];
        high[i] = h * c[i] - l * s[i];
      }
    };
    float product = 0.0f;  // Σ dn·weight·x
    const auto add_product = [&](std::int64_t column, const float(&dn)[kVector]) {
      float value[kVector], weight[kVector];
      load<kVector>(value, x + column);
      load<kVector>(weight, a.weight + column);
#pragma unroll
      for (int i = 0; i < kVector; ++i) product += dn[i] * weight[i] * value[i];
    };
    for_units(
        [&](std::int64_t column) {
          float low[kVector], high[kVector];
          unrotated(column, low, high);
          add_product(column, low);
          add_product(a.half + column, high);
        },
        [&](std::int64_t column) {
          float dn[kVector];
          load<kVector>(dn, dy + column);
          add_product(column, dn);
        });
    const float scale = rstd * rstd * lanes_sum<kLanes>(product) / static_cast<float>(a.head_dim);
    if (!active) continue;
    const auto finish = [&](std::int64_t column, const float(&dn)[kVector]) {
      float value[kVector], weight[kVector];
      load<kVector>(value, x + column);
      load<kVector>(weight, a.weight + column);
      if (a.partial) {
        float sum[kVector];
        load<kVector>(sum, dweight + column);
#pragma unroll
        for (int i = 0; i < kVector; ++i) sum[i] += dn[i] * value[i] * rstd;
        store<kVector>(dweight + column, sum);
      }
#pragma unroll
      for (int i = 0; i < kVector; ++i) value[i] = rstd * (dn[i] * weight[i] - value[i] * scale);
      store<kVector>(dx + column, value);
    };
    for_units(
        [&](std::int64_t column) {
          float low[kVector], high[kVector];
          unrotated(column, low, high);
          finish(column, low);
          finish(a.half + column, high);
        },
        [&](std::int64_t column) {
          float dn[kVector];
          load<kVector>(dn, dy + column);
          finish(column, dn);
        });
  }
  if (!a.partial) return;
  __syncthreads();
  for (std::int64_t column = threadIdx.x; column < a.head_dim; column += kThreads) {
    float sum = 0.0f;
    for (int i = 0; i < kGroups; ++i) sum += sums[i * a.head_dim + column];
    a.partial[blockIdx.x * a.head_dim + column] = sum;
  }
}

/// Wide accesses share a head among 8 lanes; single ones among a warp.
template <class T, class Body>
void for_head_access(std::int64_t head_dim, std::int64_t half, std::initializer_list<Tensor> tensors,
                     Body&& body) {
  constexpr int kWide = kPack<T>;
  if (head_dim % kWide == 0 && half % kWide == 0 && rows_aligned(kWide, tensors)) {
    body(std::integral_constant<int, kWide>{}, std::integral_constant<int, 8>{});
  } else {
    body(std::integral_constant<int, 1>{}, std::integral_constant<int, kWarp>{});
  }
}

}  // namespace
}  // namespace cuda

using namespace cuda;

// Memory bound: 2 elements moved for one result; the tables stay in cache. 68 % of an H200's bandwidth at
// 8192 x 32 x 128, 53 % with a norm, whose second pass waits for the caches.
void launch(CudaQueue& queue, const RopeForward& op) {
  const std::int64_t tokens = op.x.size(0), heads = op.x.size(1), head_dim = op.x.size(2),
                     half = op.cos.size(1);
  if (tokens * heads == 0) return;
  for_storage(op.x.dtype(), [&](auto storage) {
    using T = decltype(storage);
    for_head_access<T>(head_dim, half, {op.y, op.x, op.weight, op.cos, op.sin}, [&](auto access, auto lanes) {
      const Forward<T> arguments{.y = pointer<T>(op.y),
                                 .rstd = pointer<float>(op.rstd),
                                 .x = pointer<const T>(op.x),
                                 .weight = pointer<const T>(op.weight),
                                 .cos = op.cos.data<float>(),
                                 .sin = op.sin.data<float>(),
                                 .positions = op.positions.data<std::int32_t>(),
                                 .y_stride = op.y.stride(),
                                 .x_stride = op.x.stride(),
                                 .tokens = tokens,
                                 .heads = heads,
                                 .head_dim = head_dim,
                                 .half = half,
                                 .eps = static_cast<float>(op.eps)};
      const std::int64_t blocks = divide_round_up<std::int64_t>(tokens * heads, kThreads / lanes());
      rope_forward<T, access(), lanes()>
          <<<static_cast<unsigned>(blocks), kThreads, 0, stream_of(queue)>>>(arguments);
      check_launch(RopeForward::kName);
    });
  });
}

// Memory bound: 3 elements moved with a norm, 2 without. 43 % and 65 % of an H200's bandwidth at 8192 x 32 x
// 128.
void launch(CudaQueue& queue, const RopeBackward& op) {
  const std::int64_t tokens = op.dy.size(0), heads = op.dy.size(1), head_dim = op.dy.size(2),
                     half = op.cos.size(1);
  if (head_dim == 0) return;
  const bool trained = !op.dweight.empty();
  Tensor partial;
  for_storage(op.dy.dtype(), [&](auto storage) {
    using T = decltype(storage);
    for_head_access<T>(
        head_dim, half, {op.dx, op.dy, op.x, op.weight, op.cos, op.sin}, [&](auto access, auto lanes) {
          constexpr int kGroups = kThreads / decltype(lanes)::value;
          const std::int64_t wanted = divide_round_up<std::int64_t>(tokens * heads, kGroups);
          const std::int64_t blocks =
              trained ? std::clamp<std::int64_t>(wanted, 1, std::int64_t{4} * queue.multiprocessors())
                      : std::max<std::int64_t>(wanted, 1);
          const std::int64_t shared = trained ? bytes_of(DType::f32, kGroups * head_dim) : 0;
          if (trained)
            partial = Tensor(queue.workspace(bytes_of(DType::f32, blocks * head_dim)), DType::f32,
                             Shape{blocks, head_dim});
          const auto kernel = rope_backward<T, access(), lanes()>;
          const Backward<T> arguments{.dx = pointer<T>(op.dx),
                                      .partial = pointer<float>(partial),
                                      .dy = pointer<const T>(op.dy),
                                      .x = pointer<const T>(op.x),
                                      .weight = pointer<const T>(op.weight),
                                      .rstd = pointer<const float>(op.rstd),
                                      .cos = op.cos.data<float>(),
                                      .sin = op.sin.data<float>(),
                                      .positions = op.positions.data<std::int32_t>(),
                                      .dx_stride = op.dx.stride(),
                                      .dy_stride = op.dy.stride(),
                                      .x_stride = op.x.stride(),
                                      .tokens = tokens,
                                      .heads = heads,
                                      .head_dim = head_dim,
                                      .half = half};
          const cudaStream_t stream = stream_of(queue);
          reserve_shared(kernel, shared);
          kernel<<<static_cast<unsigned>(blocks), kThreads, static_cast<std::size_t>(shared), stream>>>(
              arguments);
          check_launch(RopeBackward::kName);
        });
  });
  if (trained) add_partials(queue, op.dweight, op.accumulate_dweight, partial);
}

}  // namespace verne
