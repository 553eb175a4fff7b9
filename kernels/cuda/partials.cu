#include "cuda/device.cuh"
#include "cuda/partials.cuh"

namespace verne::cuda {
namespace {

constexpr int kSlices = 8;

/// A block takes 32 columns; each of its 8 warps sums a slice of the parts, then the slices are added in
/// order.
__global__ void __launch_bounds__(kWarp* kSlices)
    add_partials_kernel(float* out, const float* partial, std::int64_t parts, std::int64_t width,
                        Accumulate accumulate) {
  __shared__ float slices[kSlices][kWarp];
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kWarp + threadIdx.x;
  const std::int64_t slice = (parts + kSlices - 1) / kSlices;
  const std::int64_t begin = slice * threadIdx.y;
  const std::int64_t end = begin + slice < parts ? begin + slice : parts;
  float sum = 0.0f;
  if (column < width) {
#pragma unroll 8
    for (std::int64_t i = begin; i < end; ++i) sum += partial[i * width + column];
  }
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
  float total = accumulate == Accumulate::yes ? out[column] : 0.0f;
#pragma unroll
  for (int i = 0; i < kSlices; ++i) total += slices[i][threadIdx.x];
  out[column] = total;
}

}  // namespace

void add_partials(CudaQueue& queue, const Tensor& out, Accumulate accumulate, const Tensor& partial) {
  const std::int64_t width = partial.size(1);
  if (width == 0) return;
  add_partials_kernel<<<static_cast<unsigned>(divide_round_up<std::int64_t>(width, kWarp)),
                        dim3(kWarp, kSlices), 0, stream_of(queue)>>>(out.data<float>(), partial.data<float>(),
                                                                     partial.size(0), width, accumulate);
  check_launch("add_partials");
}

}  // namespace verne::cuda
