#pragma once
#include "verne/ops/launch.hpp"

namespace verne {

/// y = silu(gate)·up, silu(x) = x/(1 + e^−x). gate_up: [tokens, 2·width], gate first; y: [tokens, width].
struct SwiGluForward {
  static constexpr const char* kName = "SwiGluForward";
  Operand y;       // out: what the next matmul eats
  Tensor gate_up;  // in
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const SwiGluForward&);
void launch(CudaQueue&, const SwiGluForward&);

/// dgate = dy·up·σ(gate)·(1 + gate·(1 − σ(gate))),  dup = dy·silu(gate). dgate_up may alias gate_up.
/// Overwrites.
struct SwiGluBackward {
  static constexpr const char* kName = "SwiGluBackward";
  Tensor dgate_up;     // out
  Tensor dy, gate_up;  // in
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const SwiGluBackward&);
void launch(CudaQueue&, const SwiGluBackward&);

/// y = max(x, 0)². Any equal shapes.
struct SquaredReluForward {
  static constexpr const char* kName = "SquaredReluForward";
  Operand y;  // out: what the next matmul eats
  Tensor x;   // in
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const SquaredReluForward&);
void launch(CudaQueue&, const SquaredReluForward&);

/// dx = 2·max(x, 0)·dy. dx may alias x or dy. Overwrites.
struct SquaredReluBackward {
  static constexpr const char* kName = "SquaredReluBackward";
  Tensor dx;     // out
  Tensor dy, x;  // in
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const SquaredReluBackward&);
void launch(CudaQueue&, const SquaredReluBackward&);

}  // namespace verne
