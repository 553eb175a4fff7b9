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
    Tensor normalised;  ///< empty where it is rebuilt
  };

  /// y: [tokens, out / tensor].
  void forward(Step& step, const Tensor& y, Stream& stream, Saved& saved) const;
  /// dx: gradient of the stream, in and out.
  void backward(Step& step, const Tensor& dx, const Tensor& dy, const Saved& saved) const;

  std::vector<Parameter*> parameters();
};

}  // namespace verne
