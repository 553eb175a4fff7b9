#pragma once
// What the CUDA kernels share: storage types, wide memory accesses, reductions, launch shapes.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "verne/base/checked.hpp"
#include "verne/ops/launch.hpp"
#include "verne/tensor/cuda_check.hpp"
#include "verne/tensor/cuda_queue.hpp"

namespace verne::cuda {

using bfloat16 = __nv_bfloat16;

inline constexpr int kWarp = 32;
/// Widest access of a thread.
inline constexpr int kAccessBytes = 16;
template <class T>
inline constexpr int kPack = kAccessBytes / static_cast<int>(sizeof(T));

// ---- storage ----

__device__ inline float to_float(float x) {
  return x;
}
__device__ inline float to_float(bfloat16 x) {
  return __bfloat162float(x);
}
__device__ inline float to_float(__half x) {
  return __half2float(x);
}

template <class T>
__device__ T from_float(float x) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    return __float2bfloat16_rn(x);
  } else if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(x);
  } else {
    return static_cast<T>(x);
  }
}
/// x as T holds it.
template <class T>
__device__ float rounded(float x) {
  return to_float(from_float<T>(x));
}

/// N elements that one access moves: a word of their size, so that the compiler cannot take the access apart.
template <int kBytes>
using Word = std::conditional_t<
    kBytes == 16, uint4,
    std::conditional_t<kBytes == 8, uint2, std::conditional_t<kBytes == 4, unsigned, unsigned short>>>;
template <class T, int N>
union Pack {
  using Bits = Word<static_cast<int>(sizeof(T)) * N>;
  Bits bits;
  T value[N];
  __device__ Pack() : bits{} {}
};
template <int N, class T>
__device__ Pack<T, N> load_pack(const T* p) {
  Pack<T, N> pack;
  pack.bits = *reinterpret_cast<const typename Pack<T, N>::Bits*>(p);
  return pack;
}
template <int N, class T>
__device__ void store_pack(T* p, const Pack<T, N>& pack) {
  *reinterpret_cast<typename Pack<T, N>::Bits*>(p) = pack.bits;
}

/// x = p[0, N): in accesses of at most 16 bytes; p is aligned to the smaller of N elements and 16 bytes.
template <int N, class T>
__device__ void load(float (&x)[N], const T* p) {
  constexpr int kStep = N < kPack<T> ? N : kPack<T>;
#pragma unroll
  for (int begin = 0; begin < N; begin += kStep) {
    const auto pack = load_pack<kStep>(p + begin);
#pragma unroll
    for (int i = 0; i < kStep; ++i) x[begin + i] = to_float(pack.value[i]);
  }
}
template <int N, class T>
__device__ void store(T* p, const float (&x)[N]) {
  constexpr int kStep = N < kPack<T> ? N : kPack<T>;
#pragma unroll
  for (int begin = 0; begin < N; begin += kStep) {
    Pack<T, kStep> pack;
#pragma unroll
    for (int i = 0; i < kStep; ++i) pack.value[i] = from_float<T>(x[begin + i]);
    store_pack<kStep>(p + begin, pack);
  }
}

// ---- reductions; their order is fixed ----

template <class T>
__device__ T warp_sum(T x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}
__device__ inline float warp_max(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}
/// Sum over the block, on every thread. blockDim.x is a multiple of 32.
template <class T>
__device__ T block_sum(T x) {
  __shared__ T warps[kWarp];
  x = warp_sum(x);
  __syncthreads();  // the sum before this one has been read
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = x;
  __syncthreads();
  const unsigned lane = threadIdx.x % kWarp;
  return warp_sum(lane < blockDim.x / kWarp ? warps[lane] : T{});
}
__device__ inline float block_max(float x) {
  __shared__ float warps[kWarp];
  x = warp_max(x);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = x;
  __syncthreads();
  const unsigned lane = threadIdx.x % kWarp;
  return warp_max(lane < blockDim.x / kWarp ? warps[lane] : -INFINITY);
}

// ---- host side ----

/// The queue's stream, its GPU made current.
inline cudaStream_t stream_of(CudaQueue& queue) {
  queue.use_device();
  return queue.stream();
}

template <class T>
T* pointer(const Tensor& tensor) {
  return reinterpret_cast<T*>(tensor.raw());
}

/// Calls body with a value of the storage type, float or bfloat16.
template <class Body>
void for_storage(DType dtype, Body&& body) {
  if (dtype == DType::f32) {
    body(float{});
  } else if (dtype == DType::bf16) {
    body(bfloat16{});
  } else {
    throw InternalError(
        fmt::format("the CUDA kernels hold activations in fp32 or bf16, not {}", name(dtype)));
  }
}

/// Calls body with the number of elements of T that one access may move: all of 16 bytes where `wide`, else
/// one.
template <class T, class Body>
void for_access(bool wide, Body&& body) {
  if (wide) {
    body(std::integral_constant<int, kPack<T>>{});
  } else {
    body(std::integral_constant<int, 1>{});
  }
}

/// Elements of one index of the leading axis, and the number of those; a vector is one row.
inline std::int64_t row_count(const Tensor& tensor) {
  return tensor.rank() < 2 ? 1 : tensor.size(0);
}
inline std::int64_t row_width(const Tensor& tensor) {
  return row_count(tensor) == 0 ? 0 : tensor.count() / row_count(tensor);
}
inline std::int64_t row_stride(const Tensor& tensor) {
  return tensor.rank() < 2 ? tensor.count() : tensor.stride();
}

/// Whether every row of each tensor (empty ones do not count) starts on a multiple of `elements` of its own
/// elements.
inline bool rows_aligned(std::int64_t elements, std::initializer_list<Tensor> tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [&](const Tensor& tensor) {
    const auto bytes = std::min<std::int64_t>(bytes_of(tensor.dtype(), elements), kAccessBytes);
    return !tensor ||
           (reinterpret_cast<std::uintptr_t>(tensor.raw()) % static_cast<std::uintptr_t>(bytes) == 0 &&
            (row_count(tensor) <= 1 || row_stride(tensor) % elements == 0));
  });
}

/// Threads for a block that works on one row: about two accesses a thread.
inline int row_threads(std::int64_t width, int elements_per_access) {
  const std::int64_t accesses = divide_round_up<std::int64_t>(width, elements_per_access);
  return static_cast<int>(std::clamp<std::int64_t>(
      round_up<std::int64_t>(divide_round_up<std::int64_t>(accesses, 2), kWarp), 32, 1024));
}

/// Lets `kernel` take `bytes` of dynamic shared memory; more than 48 KiB must be asked for.
template <class Kernel>
void reserve_shared(Kernel kernel, std::int64_t bytes) {
  if (bytes <= 48 * 1024) return;
  check_cuda(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
      "cudaFuncSetAttribute of dynamic shared memory");
}

// ---- elementwise operations ----

inline constexpr int kMapThreads = 256;

/// f.run<N>(row, column) for columns [column, column + N) of every row; N is kVector, and 1 in a row's tail.
template <int kVector, class F>
__global__ void __launch_bounds__(kMapThreads) map_rows_kernel(F f, std::int64_t rows, std::int64_t width) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kMapThreads * kVector;
  const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * kMapThreads + threadIdx.x) * kVector;
  for (std::int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    for (std::int64_t column = first; column < width; column += step) {
      if (kVector == 1 || column + kVector <= width) {
        f.template run<kVector>(row, column);
      } else {
        for (std::int64_t i = column; i < width; ++i) f.template run<1>(row, i);
      }
    }
  }
}

template <int kVector, class F>
void map_rows(CudaQueue& queue, const char* name, const F& f, std::int64_t rows, std::int64_t width) {
  if (rows == 0 || width == 0) return;
  const std::int64_t blocks = divide_round_up<std::int64_t>(width, kMapThreads * kVector);
  const dim3 grid(static_cast<unsigned>(std::min<std::int64_t>(blocks, std::int64_t{1} << 30)),
                  static_cast<unsigned>(std::min<std::int64_t>(rows, 65535)));
  map_rows_kernel<kVector><<<grid, kMapThreads, 0, stream_of(queue)>>>(f, rows, width);
  check_launch(name);
}

}  // namespace verne::cuda
