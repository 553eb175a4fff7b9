#include "cuda/device.cuh"
#include "verne/ops/reduce.hpp"

namespace verne {
namespace cuda {
namespace {

// The same on every GPU, so that the order of a sum depends on the count alone. 1,024 blocks of 256 threads
// are about one wave of the largest GPUs.
constexpr int kBlocks = 1024;
constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    masked_sum_kernel(double* partial, const float* values, const std::uint8_t* mask, std::int64_t n) {
  double sum = 0.0;
  const std::int64_t step = static_cast<std::int64_t>(kBlocks) * kThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < n; i += step) {
    if (mask[i] != 0) sum += static_cast<double>(values[i]) * mask[i];
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <int kVector>
__global__ void __launch_bounds__(kThreads)
    squares_kernel(double* partial, const float* values, std::int64_t n) {
  double sum = 0.0;
  const std::int64_t step = static_cast<std::int64_t>(kBlocks) * kThreads * kVector;
  const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kVector;
#pragma unroll 4
  for (std::int64_t i = first; i < n - kVector + 1; i += step) {
    float x[kVector];
    load<kVector>(x, values + i);
#pragma unroll
    for (int j = 0; j < kVector; ++j) sum += static_cast<double>(x[j]) * static_cast<double>(x[j]);
  }
  const std::int64_t whole = n / kVector * kVector;
  if (blockIdx.x == 0 && threadIdx.x < n - whole) {
    const auto x = static_cast<double>(values[whole + threadIdx.x]);
    sum += x * x;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/// total += factor·Σ partial, by one block.
__global__ void __launch_bounds__(kThreads)
    finish_kernel(double* total, const double* partial, double factor) {
  double sum = 0.0;
  for (int i = threadIdx.x; i < kBlocks; i += kThreads) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *total += factor * sum;
}

double* partials(CudaQueue& queue) {
  return reinterpret_cast<double*>(queue.workspace(bytes_of(DType::f64, kBlocks)));
}

void finish(CudaQueue& queue, const Tensor& total, const double* partial, double factor) {
  finish_kernel<<<1, kThreads, 0, stream_of(queue)>>>(total.data<double>(), partial, factor);
  check_launch("finish of a sum");
}

}  // namespace
}  // namespace cuda

using namespace cuda;

// Memory bound: 5 bytes a value.
void launch(CudaQueue& queue, const MaskedSum& op) {
  double* partial = partials(queue);
  masked_sum_kernel<<<kBlocks, kThreads, 0, stream_of(queue)>>>(
      partial, op.values.data<float>(), op.mask.data<std::uint8_t>(), op.values.count());
  check_launch(MaskedSum::kName);
  finish(queue, op.total, partial, op.factor);
}

// Memory bound: 4 bytes a value. 98 % of an H200's bandwidth.
void launch(CudaQueue& queue, const SumOfSquares& op) {
  double* partial = partials(queue);
  const std::int64_t n = op.values.count();
  const bool wide = reinterpret_cast<std::uintptr_t>(op.values.raw()) % kAccessBytes == 0;
  for_access<float>(wide, [&](auto access) {
    squares_kernel<access()><<<kBlocks, kThreads, 0, stream_of(queue)>>>(partial, op.values.data<float>(), n);
    check_launch(SumOfSquares::kName);
  });
  finish(queue, op.total, partial, 1.0);
}

}  // namespace verne
