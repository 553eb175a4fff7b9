#pragma once
#include "verne/ops/launch.hpp"

namespace verne {

/// total += factor·Σ values[i]·mask[i]. total: f64 [1]; values: f32 (f64) [n]; mask: u8 [n]. Deterministic:
/// the order of the sum depends on n alone.
struct MaskedSum {
  static constexpr const char* kName = "MaskedSum";
  Tensor total;         // in and out
  Tensor values, mask;  // in
  double factor = 1;
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const MaskedSum&);
void launch(CudaQueue&, const MaskedSum&);

/// total += Σ values², in float64. total: f64 [1]; values: f32 (f64), contiguous. Deterministic. NaN and
/// infinity carry over.
struct SumOfSquares {
  static constexpr const char* kName = "SumOfSquares";
  Tensor total;   // in and out
  Tensor values;  // in
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const SumOfSquares&);
void launch(CudaQueue&, const SumOfSquares&);

}  // namespace verne
