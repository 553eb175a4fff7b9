#pragma once
#include "verne/base/random.hpp"
#include "verne/ops/launch.hpp"

namespace verne {

/// y = value. Any dtype but integers; rows may be strided.
struct Fill {
  static constexpr const char* kName = "Fill";
  Tensor y;  // out
  double value = 0;
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const Fill&);
void launch(CudaQueue&, const Fill&);

/// y = x in y's dtype (f32, bf16, f16, f64 on the CPU), rounded to nearest even. Equal shapes, rows may be
/// strided: with equal dtypes this is the strided copy.
struct Cast {
  static constexpr const char* kName = "Cast";
  Tensor y;  // out
  Tensor x;  // in
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const Cast&);
void launch(CudaQueue&, const Cast&);

/// y = a + b, one dtype (f32, bf16, f64), equal shapes, contiguous. y may alias a or b.
struct Add {
  static constexpr const char* kName = "Add";
  Tensor y;     // out
  Tensor a, b;  // in
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const Add&);
void launch(CudaQueue&, const Add&);

/// y[r, c] = mean + deviation·N(0,1), from the random site at element (first_row + r)·row_length +
/// first_column + c: the same value whatever block of the logical matrix this rank holds. Box-Muller on
/// philox words 0 and 1, in float32. y: matrix or vector (one row); f32 or bf16 (f64 on the CPU); rows may be
/// strided.
struct RandomNormal {
  static constexpr const char* kName = "RandomNormal";
  Tensor y;  // out
  RandomSite site;
  double mean = 0, deviation = 1;
  std::int64_t first_row = 0, first_column = 0, row_length = 0;
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const RandomNormal&);
void launch(CudaQueue&, const RandomNormal&);

}  // namespace verne
