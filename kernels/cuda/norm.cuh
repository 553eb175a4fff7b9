#pragma once
// What RMSNorm and LayerNorm share: a block works on one row at a time, a thread always on the same columns
// of it.
#include "cuda/device.cuh"

namespace verne::cuda {

/// Accesses of a row that a thread keeps in registers; later ones are read again.
inline constexpr int kKept = 4;
/// This thread's columns of a row of any width.
template <int kVector>
struct RowColumns {
  std::int64_t width;

  __device__ std::int64_t column(int access) const {
    return (static_cast<std::int64_t>(access) * blockDim.x + threadIdx.x) * kVector;
  }
  /// body(column, values) for this thread's columns, in order; fills `kept`.
  template <class Body>
  __device__ void first(float (&kept)[kKept][kVector], Body&& body) const {
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      if (column(i) < width) body(column(i), kept[i]);
    }
    for (int i = kKept; column(i) < width; ++i) {
      float values[kVector];
      body(column(i), values);
    }
  }
  /// The same again; `reload(column, values)` makes those values that were not kept.
  template <class Reload, class Body>
  __device__ void again(float (&kept)[kKept][kVector], Reload&& reload, Body&& body) const {
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      if (column(i) < width) body(column(i), kept[i]);
    }
    for (int i = kKept; column(i) < width; ++i) {
      float values[kVector];
      reload(column(i), values);
      body(column(i), values);
    }
  }
};

/// sum = x + residual, rounded to T, written where there is a residual; returns it in `values`.
template <int N, class T>
__device__ void residual_sum(float (&values)[N], T* sum, const T* x, const T* residual) {
  load<N>(values, x);
  if (residual == nullptr) return;
  float other[N];
  load<N>(other, residual);
#pragma unroll
  for (int i = 0; i < N; ++i) values[i] = rounded<T>(values[i] + other[i]);
  store<N>(sum, values);
}

/// Rows of a backward that sums over rows: each block takes rows block, block + blocks, … and leaves one
/// partial sum.
inline std::int64_t backward_blocks(const CudaQueue& queue, std::int64_t rows) {
  return std::clamp<std::int64_t>(rows, 1, std::int64_t{4} * queue.multiprocessors());
}

}  // namespace verne::cuda
