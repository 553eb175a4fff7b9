#include "cuda/device.cuh"
#include "cuda/partials.cuh"
#include "verne/ops/bias.hpp"

namespace verne {
namespace cuda {
namespace {

template <class T, class B>
struct AddBiasRows {
  T* y;
  const B* bias;
  std::int64_t stride;
  template <int N>
  __device__ void run(std::int64_t row, std::int64_t column) const {
    float sum[N], added[N];
    load<N>(sum, y + row * stride + column);
    load<N>(added, bias + column);
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += added[i];
    store<N>(y + row * stride + column, sum);
  }
};

constexpr int kRowsAtOnce = 8;

/// A block: 32·kVector columns, a warp a row. It takes rows 8·block, 8·block + 1, … and every 8·gridDim.y-th
/// after them, and leaves their sums in partial[block, width]. width is a multiple of kVector.
template <class T, int kVector>
__global__ void __launch_bounds__(kWarp* kRowsAtOnce)
    column_sums_kernel(float* partial, const T* dy, std::int64_t stride, std::int64_t rows,
                       std::int64_t width) {
  __shared__ float sums[kRowsAtOnce][kVector][kWarp];
  const int lane = threadIdx.x, warp = threadIdx.y;
  const std::int64_t column = (static_cast<std::int64_t>(blockIdx.x) * kWarp + lane) * kVector;
  float sum[kVector];
#pragma unroll
  for (int i = 0; i < kVector; ++i) sum[i] = 0.0f;
  if (column < width) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.y) * kRowsAtOnce;
#pragma unroll 4
    for (std::int64_t row = static_cast<std::int64_t>(blockIdx.y) * kRowsAtOnce + warp; row < rows;
         row += step) {
      float value[kVector];
      load<kVector>(value, dy + row * stride + column);
#pragma unroll
      for (int i = 0; i < kVector; ++i) sum[i] += value[i];
    }
  }
#pragma unroll
  for (int i = 0; i < kVector; ++i) sums[warp][i][lane] = sum[i];
  __syncthreads();
  if (warp != 0 || column >= width) return;
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
#pragma unroll
    for (int w = 1; w < kRowsAtOnce; ++w) sum[i] += sums[w][i][lane];
  }
  store<kVector>(partial + blockIdx.y * width + column, sum);
}

}  // namespace
}  // namespace cuda

using namespace cuda;

// Memory bound: reads and writes y once.
void launch(CudaQueue& queue, const AddBias& op) {
  const std::int64_t rows = op.y.size(0), width = op.y.size(1);
  for_storage(op.y.dtype(), [&](auto to) {
    for_storage(op.bias.dtype(), [&](auto from) {
      using T = decltype(to);
      using B = decltype(from);
      using Narrow = std::conditional_t<sizeof(T) < sizeof(B), T, B>;
      const bool wide = width % kPack<Narrow> == 0 && rows_aligned(kPack<Narrow>, {op.y, op.bias});
      for_access<Narrow>(wide, [&](auto access) {
        map_rows<access()>(queue, AddBias::kName,
                           AddBiasRows<T, B>{pointer<T>(op.y), pointer<const B>(op.bias), row_stride(op.y)},
                           rows, width);
      });
    });
  });
}

// Memory bound: reads dy once; partial sums of about 1,000 blocks are added in a second pass.
void launch(CudaQueue& queue, const BiasBackward& op) {
  const std::int64_t rows = op.dy.size(0), width = op.dy.size(1);
  if (width == 0) return;
  for_storage(op.dy.dtype(), [&](auto storage) {
    using T = decltype(storage);
    const bool wide = width % kPack<T> == 0 && rows_aligned(kPack<T>, {op.dy});
    for_access<T>(wide, [&](auto access) {
      const std::int64_t across = divide_round_up<std::int64_t>(width, kWarp * access());
      const std::int64_t enough = std::max<std::int64_t>(1, 8 * queue.multiprocessors() / across);
      const std::int64_t down =
          std::clamp<std::int64_t>(divide_round_up<std::int64_t>(rows, kRowsAtOnce), 1, enough);
      const Tensor partial(queue.workspace(bytes_of(DType::f32, down * width)), DType::f32,
                           Shape{down, width});
      column_sums_kernel<T, access()>
          <<<dim3(static_cast<unsigned>(across), static_cast<unsigned>(down)), dim3(kWarp, kRowsAtOnce), 0,
             stream_of(queue)>>>(partial.data<float>(), pointer<const T>(op.dy), op.dy.stride(), rows, width);
      check_launch(BiasBackward::kName);
      add_partials(queue, op.dbias, op.accumulate, partial);
    });
  });
}

}  // namespace verne
