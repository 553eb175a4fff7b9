#pragma once
#include "verne/nn/step.hpp"

namespace verne {

/// y = x·Wᵀ with W's rows cut among tensor ranks: x [stream tokens, in] → y [tokens, out / tensor].
/// Under sequence parallelism the tokens are gathered first.
struct ColumnLinear {
  Parameter weight;

  void forward(Step& step, const Tensor& y, const Tensor& x) const;
  /// Overwrites dx [stream tokens, in] with the sum over tensor ranks; adds into the weight's gradient. Runs
  /// in two halves so that the gather of x hides under dy·W and the reduction of dx under dyᵀ·x.
  void backward(Step& step, const Tensor& dx, const Tensor& dy, const Tensor& x) const;
};

/// y = x·Wᵀ with W's columns cut among tensor ranks: x [tokens, in / tensor] → y [stream tokens, out], summed
/// over tensor ranks; under sequence parallelism each rank keeps its tokens.
struct RowLinear {
  Parameter weight;

  void forward(Step& step, const Tensor& y, const Tensor& x) const;
  /// Overwrites dx [tokens, in / tensor]; adds into the weight's gradient.
  void backward(Step& step, const Tensor& dx, const Tensor& dy, const Tensor& x) const;
};

/// The residual stream's tokens of all tensor ranks: `x` itself where they are whole, else gathered into
/// scratch.
Tensor gather_stream(Step& step, const Tensor& x);
/// Reduces partial sums [tokens, width] over tensor ranks into `y` [stream tokens, width]. `partial` may be
/// `y` where the stream is whole.
void reduce_to_stream(Step& step, const Tensor& y, const Tensor& partial);

}  // namespace verne
