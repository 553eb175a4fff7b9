#pragma once
#include "verne/ops/launch.hpp"

namespace verne {

/// y[r, c] += bias[c], in float32 (float64) with one rounding. y: [rows, width] f32, bf16 or f64; bias:
/// [width] of y's dtype, or bf16 where y is f32. Rows may be strided.
struct AddBias {
  static constexpr const char* kName = "AddBias";
  Tensor y;     // in and out
  Tensor bias;  // in
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const AddBias&);
void launch(CudaQueue&, const AddBias&);

/// dbias[c] (+)= Σ_r dy[r, c]. dy: [rows, width] f32, bf16 or f64, rows may be strided; dbias: [width] f32
/// (f64 for f64). Without rows: zeros, or nothing added. Deterministic.
struct BiasBackward {
  static constexpr const char* kName = "BiasBackward";
  Tensor dbias;  // out
  Accumulate accumulate = Accumulate::no;
  Tensor dy;  // in
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const BiasBackward&);
void launch(CudaQueue&, const BiasBackward&);

}  // namespace verne
