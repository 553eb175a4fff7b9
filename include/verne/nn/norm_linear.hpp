#pragma once
#include "verne/nn/linear.hpp"
#include "verne/nn/norm.hpp"

namespace verne {

/// norm, then a column-parallel linear layer. Owns both halves' memory, so that it may keep the normalised
/// tensor or build it again in backward.
struct NormLinear {
  Norm norm;
  ColumnLinear linear;
  Keep keep = Keep::stored;

  struct Saved {
    Norm::Saved norm;
    Operand normalised;  ///< empty where it is rebuilt, or where the weight is frozen
  };

  /// y: [tokens, out / tensor].
  void forward(Step& step, const Tensor& y, Stream& stream, Saved& saved) const;
  /// The first half: the linear layer's input, of all tensor ranks, in scratch or in what is saved.
  Operand normalise(Step& step, Stream& stream, Saved& saved) const;

  /// dx: gradient of the stream, in and out.
  void backward(Step& step, const Tensor& dx, const Tensor& dy, const Saved& saved) const;
  /// The linear layer's input again, of this rank's stream; empty where backward does not read it.
  Operand input(Step& step, const Saved& saved) const;

  void add_parameters(std::vector<Parameter*>& all);
};

}  // namespace verne
