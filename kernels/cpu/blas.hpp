#pragma once
#include <cblas.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "verne/ops/matmul.hpp"

namespace verne {

/// Row-major matrix in memory; op(x) is x or its transpose.
template <class R>
struct BlasMatrix {
  R* data;
  std::int64_t stride;
  Transpose transpose = Transpose::no;
};

/// OpenBLAS computes on the calling thread alone: the queue's threads each take blocks of their own, so that
/// results do not depend on how many there are, and ranks that share a node do not oversubscribe it. Call
/// before blocks are handed out.
inline void use_calling_thread_for_blas() {
  if (openblas_get_num_threads() != 1) openblas_set_num_threads(1);
}

/// c = alpha·op(a)·op(b) + beta·c with op(a) [m, k] and op(b) [k, n]. With beta 0, c is not read.
template <class R>
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, R alpha, BlasMatrix<const R> a,
          BlasMatrix<const R> b, R beta, BlasMatrix<R> c) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    for (std::int64_t row = 0; row < m; ++row) {
      R* out = c.data + row * c.stride;
      for (std::int64_t column = 0; column < n; ++column) out[column] = beta == 0 ? R{0} : beta * out[column];
    }
    return;
  }
  const auto narrow = [](std::int64_t value) {
    require(value <= std::numeric_limits<blasint>::max(), "matmul: {} is beyond the BLAS library's integers",
            value);
    return static_cast<blasint>(std::max<std::int64_t>(value, 1));
  };
  const auto transpose = [](Transpose t) { return t == Transpose::yes ? CblasTrans : CblasNoTrans; };
  if constexpr (std::is_same_v<R, double>) {
    cblas_dgemm(CblasRowMajor, transpose(a.transpose), transpose(b.transpose), narrow(m), narrow(n),
                narrow(k), alpha, a.data, narrow(a.stride), b.data, narrow(b.stride), beta, c.data,
                narrow(c.stride));
  } else {
    cblas_sgemm(CblasRowMajor, transpose(a.transpose), transpose(b.transpose), narrow(m), narrow(n),
                narrow(k), alpha, a.data, narrow(a.stride), b.data, narrow(b.stride), beta, c.data,
                narrow(c.stride));
  }
}

}  // namespace verne
