#pragma once
#include "verne/ops/launch.hpp"

namespace verne {

/// Optional per-head RMSNorm, then rotary embedding, of query and key heads.
///   n = weight ? round(x·rstd)·weight : x         over head_dim; rstd saved
///   y[j] = n[j]·cos − n[j+r/2]·sin,  y[j+r/2] = n[j+r/2]·cos + n[j]·sin    for j < r/2; the rest passes
///   through
/// (half-split form; r = the table's width, at most head_dim). In float32, one rounding after the norm's gain
/// and one at the end. x, y: [tokens, heads, head_dim], rows may be strided; y may alias x where there is no
/// norm. cos, sin: f32 (f64) [positions, r/2]; positions i32 [tokens], each below the table's length.
struct RopeForward {
  static constexpr const char* kName = "RopeForward";
  Tensor y;                    // out
  Tensor rstd;                 // out, f32 (f64) [tokens, heads]; empty without a norm
  Tensor x, weight;            // in; weight [head_dim], empty without a norm
  Tensor cos, sin, positions;  // in
  double eps = 1e-6;

  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const RopeForward&);
void launch(CudaQueue&, const RopeForward&);

/// Gradient: rotates dy back, then the norm's backward; dweight (+)= over tokens and heads. dx may alias dy.
/// x is the forward's input (needed with a norm only). Deterministic.
struct RopeBackward {
  static constexpr const char* kName = "RopeBackward";
  Tensor dx, dweight;  // out; dweight f32 (f64) [head_dim], empty without a norm or where frozen
  Accumulate accumulate_dweight = Accumulate::no;
  Tensor dy, x, rstd, weight;  // in; x, rstd, weight empty without a norm
  Tensor cos, sin, positions;  // in

  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const RopeBackward&);
void launch(CudaQueue&, const RopeBackward&);

}  // namespace verne
