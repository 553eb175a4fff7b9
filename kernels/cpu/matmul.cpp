#include "verne/ops/matmul.hpp"

#include "blas.hpp"
#include "support.hpp"

namespace verne {
namespace {

/// The output is cut into tiles that depend on its shape alone; a tile is one job.
struct Tiling {
  std::int64_t rows = 512, columns = 512;
  std::int64_t down, across;

  Tiling(std::int64_t m, std::int64_t n) {
    constexpr std::int64_t kSmallest = 128, kEnough = 4;
    const auto count = [&] { return divide_round_up(m, rows) * divide_round_up(n, columns); };
    while (count() < kEnough && std::max(std::min(m, rows), std::min(n, columns)) > kSmallest) {
      std::int64_t& longer = std::min(m, rows) > std::min(n, columns) ? rows : columns;
      longer /= 2;
    }
    down = divide_round_up(m, rows);
    across = divide_round_up(n, columns);
  }
};

/// Element (row, column) of op(x).
template <class S>
S* element(const Tensor& x, Transpose transpose, std::int64_t row, std::int64_t column) {
  return x.data<S>() + (transpose == Transpose::yes ? column * x.stride() + row : row * x.stride() + column);
}

/// Calls tile(row, rows, column, columns) for every tile, in parallel.
template <class Body>
void for_tiles(CpuQueue& queue, const Matmul& op, const Body& tile) {
  const std::int64_t m = op.m(), n = op.n();
  if (m == 0 || n == 0) return;
  use_calling_thread_for_blas();
  const Tiling tiling(m, n);
  queue.parallel_for(tiling.down * tiling.across, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t row = i / tiling.across * tiling.rows, column = i % tiling.across * tiling.columns;
      tile(row, std::min(tiling.rows, m - row), column, std::min(tiling.columns, n - column));
    }
  });
}

template <class R>
void multiply(CpuQueue& queue, const Matmul& op) {
  const Tensor &a = op.a.data, &b = op.b.data;
  for_tiles(queue, op, [&](std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns) {
    gemm<R>(rows, columns, op.k(), R{1}, {element<R>(a, op.transpose_a, row, 0), a.stride(), op.transpose_a},
            {element<R>(b, op.transpose_b, 0, column), b.stride(), op.transpose_b},
            op.accumulate == Accumulate::yes ? R{1} : R{0},
            {op.d.data<R>() + row * op.d.stride() + column, op.d.stride()});
    if (!op.bias) return;
    const R* bias = op.bias.data<R>() + column;
    for (std::int64_t r = 0; r < rows; ++r) {
      R* d = op.d.data<R>() + (row + r) * op.d.stride() + column;
      for (std::int64_t c = 0; c < columns; ++c) d[c] += bias[c];
    }
  });
}

/// A block of op(x) as float32, in x's own orientation.
BlasMatrix<const float> widen(const Tensor& x, Transpose transpose, std::int64_t row, std::int64_t rows,
                              std::int64_t column, std::int64_t columns, std::vector<float>& buffer) {
  const bf16* from = element<bf16>(x, transpose, row, column);
  if (transpose == Transpose::yes) std::swap(rows, columns);
  buffer.resize(static_cast<std::size_t>(rows * columns));
  for (std::int64_t r = 0; r < rows; ++r) {
    float* to = buffer.data() + r * columns;
    for (std::int64_t c = 0; c < columns; ++c) to[c] = load(from[r * x.stride() + c]);
  }
  return {buffer.data(), columns, transpose};
}

/// bfloat16 operands: blocks of bounded depth are widened, tiles summed in float32 (from the bias on) and
/// rounded once.
template <class D>
void multiply_bf16(CpuQueue& queue, const Matmul& op) {
  constexpr std::int64_t kDepth = 1024;
  for_tiles(queue, op, [&](std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns) {
    std::vector<float> left, right, sums(static_cast<std::size_t>(rows * columns));
    for (std::int64_t r = 0; op.bias && r < rows; ++r) {
      const bf16* bias = op.bias.data<bf16>() + column;
      for (std::int64_t c = 0; c < columns; ++c)
        sums[static_cast<std::size_t>(r * columns + c)] = load(bias[c]);
    }
    for (std::int64_t depth = 0; depth < op.k(); depth += kDepth) {
      const std::int64_t step = std::min(kDepth, op.k() - depth);
      const auto a = widen(op.a.data, op.transpose_a, row, rows, depth, step, left);
      const auto b = widen(op.b.data, op.transpose_b, depth, step, column, columns, right);
      gemm<float>(rows, columns, step, 1, a, b, 1, {sums.data(), columns});
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      D* d = op.d.data<D>() + (row + r) * op.d.stride() + column;
      const float* sum = sums.data() + r * columns;
      for (std::int64_t c = 0; c < columns; ++c) {
        d[c] = store<D>(op.accumulate == Accumulate::yes ? load(d[c]) + sum[c] : sum[c]);
      }
    }
  });
}

}  // namespace

void launch(CpuQueue& queue, const Matmul& op) {
  switch (op.a.data.dtype()) {
    case DType::f64:
      return multiply<double>(queue, op);
    case DType::f32:
      return multiply<float>(queue, op);
    default:
      break;
  }
  if (op.d.dtype() == DType::bf16) return multiply_bf16<bf16>(queue, op);
  multiply_bf16<float>(queue, op);
}

}  // namespace verne
