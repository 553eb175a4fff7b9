#include "cuda/device.cuh"
#include "cuda/matmul_own.hpp"

namespace verne::cuda {
namespace {

constexpr int kTile = 16;

template <class T, class D>
struct Product {
  D* d;
  const T *a, *b, *bias;  // bias may be null
  std::int64_t m, n, k, d_stride, a_row, a_column, b_row,
      b_column;  // elements between rows and columns of op(a), op(b)
  Accumulate accumulate;
};

/// A block: 16×16 elements of d, tiles of both factors in shared memory.
template <class T, class D>
__global__ void __launch_bounds__(kTile* kTile) product_kernel(Product<T, D> p) {
  __shared__ float left[kTile][kTile + 1], right[kTile][kTile + 1];
  const int x = threadIdx.x, y = threadIdx.y;
  for (std::int64_t top = static_cast<std::int64_t>(blockIdx.y) * kTile; top < p.m;
       top += static_cast<std::int64_t>(gridDim.y) * kTile) {
    const std::int64_t row = top + y, column = static_cast<std::int64_t>(blockIdx.x) * kTile + x;
    float sum = 0.0f;
    for (std::int64_t begin = 0; begin < p.k; begin += kTile) {
      left[y][x] =
          row < p.m && begin + x < p.k ? to_float(p.a[row * p.a_row + (begin + x) * p.a_column]) : 0.0f;
      right[y][x] =
          begin + y < p.k && column < p.n ? to_float(p.b[(begin + y) * p.b_row + column * p.b_column]) : 0.0f;
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kTile; ++i) sum += left[y][i] * right[i][x];
      __syncthreads();
    }
    if (row >= p.m || column >= p.n) continue;
    if (p.bias) sum += to_float(p.bias[column]);
    D& d = p.d[row * p.d_stride + column];
    d = from_float<D>(p.accumulate == Accumulate::yes ? to_float(d) + sum : sum);
  }
}

}  // namespace

void own_matmul(CudaQueue& queue, const Matmul& op) {
  const auto steps = [](const Tensor& x, Transpose transpose) {
    return transpose == Transpose::yes ? std::pair{std::int64_t{1}, x.stride()}
                                       : std::pair{x.stride(), std::int64_t{1}};
  };
  const auto [a_row, a_column] = steps(op.a.data, op.transpose_a);
  const auto [b_row, b_column] = steps(op.b.data, op.transpose_b);
  for_storage(op.a.data.dtype(), [&](auto input) {
    for_storage(op.d.dtype(), [&](auto output) {
      using T = decltype(input);
      using D = decltype(output);
      const Product<T, D> product{pointer<D>(op.d),
                                  pointer<const T>(op.a.data),
                                  pointer<const T>(op.b.data),
                                  pointer<const T>(op.bias),
                                  op.m(),
                                  op.n(),
                                  op.k(),
                                  op.d.stride(),
                                  a_row,
                                  a_column,
                                  b_row,
                                  b_column,
                                  op.accumulate};
      const dim3 grid(
          static_cast<unsigned>(divide_round_up<std::int64_t>(op.n(), kTile)),
          static_cast<unsigned>(std::min<std::int64_t>(divide_round_up<std::int64_t>(op.m(), kTile), 65535)));
      product_kernel<T, D><<<grid, dim3(kTile, kTile), 0, stream_of(queue)>>>(product);
      check_launch(Matmul::kName);
    });
  });
}

}  // namespace verne::cuda
