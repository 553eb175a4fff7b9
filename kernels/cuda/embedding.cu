#include <cub/device/device_radix_sort.cuh>

#include "cuda/device.cuh"
#include "verne/ops/embedding.hpp"

namespace verne {
namespace cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
struct GatherRows {
  T* y;
  const T* weight;
  const std::int32_t* tokens;
  std::int64_t y_stride, weight_stride, first_row, rows;
  template <int N>
  __device__ void run(std::int64_t token, std::int64_t column) const {
    const std::int64_t row = tokens[token] - first_row;
    float values[N] = {};
    if (row >= 0 && row < rows) load<N>(values, weight + row * weight_stride + column);
    store<N>(y + token * y_stride + column, values);
  }
};

/// keys[t] = the row held here, or `rows` for another rank's; indices[t] = t.
__global__ void keys_kernel(std::uint32_t* keys, std::uint32_t* indices, const std::int32_t* tokens,
                            std::int64_t count, std::int64_t first_row, std::int64_t rows) {
  const std::int64_t t = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (t >= count) return;
  const std::int64_t row = tokens[t] - first_row;
  keys[t] = static_cast<std::uint32_t>(row >= 0 && row < rows ? row : rows);
  indices[t] = static_cast<std::uint32_t>(t);
}

/// The block at a run's first position adds that run's rows to dweight, in token order.
template <class T, int kVector>
__global__ void __launch_bounds__(kThreads)
    scatter_kernel(float* dweight, const T* dy, const std::uint32_t* keys, const std::uint32_t* indices,
                   std::int64_t count, std::int64_t rows, std::int64_t width, std::int64_t dweight_stride,
                   std::int64_t dy_stride) {
  const std::int64_t first = blockIdx.x;
  const std::int64_t row = keys[first];
  if (row >= rows || (first > 0 && keys[first - 1] == row)) return;
  for (std::int64_t column = (static_cast<std::int64_t>(blockIdx.y) * kThreads + threadIdx.x) * kVector;
       column < width; column += static_cast<std::int64_t>(gridDim.y) * kThreads * kVector) {
    float sum[kVector];
    load<kVector>(sum, dweight + row * dweight_stride + column);
    // Four rows in flight: a frequent token's run may be thousands long.
    constexpr int kInFlight = 4;
    std::int64_t i = first;
    for (; i + kInFlight <= count && keys[i + kInFlight - 1] == row; i += kInFlight) {
      float grad[kInFlight][kVector];
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) load<kVector>(grad[j], dy + indices[i + j] * dy_stride + column);
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) {
#pragma unroll
        for (int k = 0; k < kVector; ++k) sum[k] += grad[j][k];
      }
    }
    for (; i < count && keys[i] == row; ++i) {
      float grad[kVector];
      load<kVector>(grad, dy + indices[i] * dy_stride + column);
#pragma unroll
      for (int k = 0; k < kVector; ++k) sum[k] += grad[k];
    }
    store<kVector>(dweight + row * dweight_stride + column, sum);
  }
}

int key_bits(std::int64_t rows) {
  int bits = 1;
  while ((std::int64_t{1} << bits) <= rows) ++bits;
  return bits;
}

}  // namespace
}  // namespace cuda

using namespace cuda;

// Memory bound: 2 elements moved for one result. 80 % of an H200's bandwidth at 8192 x 4096.
void launch(CudaQueue& queue, const EmbeddingForward& op) {
  for_storage(op.y.dtype(), [&](auto storage) {
    using T = decltype(storage);
    for_access<T>(rows_aligned(kPack<T>, {op.y, op.weight}), [&](auto access) {
      map_rows<access()>(
          queue, EmbeddingForward::kName,
          GatherRows<T>{pointer<T>(op.y), pointer<const T>(op.weight), op.tokens.data<std::int32_t>(),
                        op.y.stride(), op.weight.stride(), op.first_row, op.weight.size(0)},
          op.y.size(0), op.y.size(1));
    });
  });
}

// Memory bound: reads dy once, and reads and writes the touched rows. Tokens are sorted by row (a stable
// sort), so the order of every sum is the tokens' own, on any queue. 33 % of an H200's bandwidth (8192 x
// 4096, one token in 16 the same: the longest run sets the time).
void launch(CudaQueue& queue, const EmbeddingBackward& op) {
  const cudaStream_t stream = stream_of(queue);
  const std::int64_t count = op.tokens.count(), rows = op.dweight.size(0), width = op.dweight.size(1);
  if (op.accumulate == Accumulate::no && rows * width > 0) {
    const auto row_bytes = static_cast<std::size_t>(bytes_of(DType::f32, width));
    const auto pitch = static_cast<std::size_t>(bytes_of(DType::f32, op.dweight.stride()));
    if (op.dweight.contiguous()) {
      queue.zero(op.dweight);
    } else {
      check_cuda(
          cudaMemset2DAsync(op.dweight.raw(), pitch, 0, row_bytes, static_cast<std::size_t>(rows), stream),
          "cudaMemset2DAsync");
    }
  }
  if (count == 0 || rows * width == 0) return;

  std::size_t sort_bytes = 0;
  const int bits = key_bits(rows);
  const std::uint32_t* no_input = nullptr;
  std::uint32_t* no_output = nullptr;
  check_cuda(cub::DeviceRadixSort::SortPairs(nullptr, sort_bytes, no_input, no_output, no_input, no_output,
                                             count, 0, bits, stream),
             "cub::DeviceRadixSort::SortPairs (size)");
  const std::int64_t list = round_up<std::int64_t>(bytes_of(DType::u32, count), 256);
  std::byte* work = queue.workspace(4 * list + static_cast<std::int64_t>(sort_bytes));
  const auto part = [&](std::int64_t index) { return reinterpret_cast<std::uint32_t*>(work + index * list); };
  keys_kernel<<<static_cast<unsigned>(divide_round_up<std::int64_t>(count, kThreads)), kThreads, 0, stream>>>(
      part(0), part(1), op.tokens.data<std::int32_t>(), count, op.first_row, rows);
  check_launch("embedding keys");
  check_cuda(cub::DeviceRadixSort::SortPairs(work + 4 * list, sort_bytes, part(0), part(2), part(1), part(3),
                                             count, 0, bits, stream),
             "cub::DeviceRadixSort::SortPairs");
  for_storage(op.dy.dtype(), [&](auto storage) {
    using T = decltype(storage);
    const bool wide = width % kPack<T> == 0 && rows_aligned(kPack<T>, {op.dweight, op.dy});
    for_access<T>(wide, [&](auto access) {
      const dim3 grid(static_cast<unsigned>(count),
                      static_cast<unsigned>(std::min<std::int64_t>(
                          divide_round_up<std::int64_t>(width, kThreads * access()), 65535)));
      scatter_kernel<T, access()>
          <<<grid, kThreads, 0, stream>>>(op.dweight.data<float>(), pointer<const T>(op.dy), part(2), part(3),
                                          count, rows, width, op.dweight.stride(), op.dy.stride());
      check_launch(EmbeddingBackward::kName);
    });
  });
}

}  // namespace verne
