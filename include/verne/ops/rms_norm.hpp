#pragma once
#include "verne/ops/launch.hpp"

namespace verne {

/// sum = x + residual (rounded to x's dtype);  rstd = 1/√(mean(sum²) + eps);  y = round(sum·rstd)·weight.
/// x, residual, sum, y: [rows, width] of one dtype; weight [width] of the same dtype; rstd [rows] f32 (f64
/// for f64). Statistics in float32; the normalised value is rounded to the dtype before the gain, as Hugging
/// Face does.
struct RmsNormForward {
  static constexpr const char* kName = "RmsNormForward";
  Operand y;                   // out: what the next matmul eats
  Tensor rstd;                 // out
  Tensor sum;                  // out; empty where there is no residual
  Tensor x, residual, weight;  // in; residual may be empty
  double eps = 1e-6;

  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const RmsNormForward&);
void launch(CudaQueue&, const RmsNormForward&);

/// With s = the normalised input, g = dy·weight:  dx = rstd·(g − s·rstd²·mean(g·s)) + dsum,  dweight (+)=
/// Σ_rows dy·s·rstd. s: the forward's `sum`, or its x where there was no residual. dsum (may be empty): the
/// gradient that reaches `sum` by the residual path. dx may alias dy or dsum. dweight: f32 (f64) [width];
/// empty where the weight is frozen. Deterministic.
struct RmsNormBackward {
  static constexpr const char* kName = "RmsNormBackward";
  Tensor dx, dweight;  // out
  Accumulate accumulate_dweight = Accumulate::no;
  Tensor dy, dsum, s, rstd, weight;  // in

  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const RmsNormBackward&);
void launch(CudaQueue&, const RmsNormBackward&);

/// LayerNorm with bias and an offset gain (Nemotron's layernorm1p: offset 1):
/// y = (sum − mean)·rstd·(weight + offset) + bias, statistics in float32, one rounding at the end.
struct LayerNormForward {
  static constexpr const char* kName = "LayerNormForward";
  Operand y;                         // out: what the next matmul eats
  Tensor mean, rstd;                 // out; [rows] f32 (f64)
  Tensor sum;                        // out; empty where there is no residual
  Tensor x, residual, weight, bias;  // in
  double eps = 1e-5;
  double weight_offset = 0;

  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const LayerNormForward&);
void launch(CudaQueue&, const LayerNormForward&);

/// With n = (s − mean)·rstd, g = dy·(weight + offset):  dx = rstd·(g − mean(g) − n·mean(g·n)) + dsum,
/// dweight (+)= Σ_rows dy·n,  dbias (+)= Σ_rows dy. dx may alias dy or dsum. Deterministic.
struct LayerNormBackward {
  static constexpr const char* kName = "LayerNormBackward";
  Tensor dx, dweight, dbias;  // out; dweight and dbias both empty where frozen
  Accumulate accumulate_dweight = Accumulate::no, accumulate_dbias = Accumulate::no;
  Tensor dy, dsum, s, mean, rstd, weight;  // in
  double weight_offset = 0;

  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const LayerNormBackward&);
void launch(CudaQueue&, const LayerNormBackward&);

}  // namespace verne
