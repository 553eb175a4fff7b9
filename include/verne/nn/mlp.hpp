#pragma once
#include "verne/nn/norm_linear.hpp"

namespace verne {

/// Norm, up projection (for SwiGLU: gate and up merged, gate first), activation, down projection.
struct Mlp {
  NormLinear up;
  RowLinear down;
  MlpKind kind = MlpKind::swiglu;
  Keep keep = Keep::stored;

  struct Saved {
    NormLinear::Saved up;
    Tensor projected;   ///< [tokens, 2·inner] for SwiGLU, else [tokens, inner]
    Operand activated;  ///< [tokens, inner]; empty where it is rebuilt, or where down is frozen
  };

  /// Writes the stream's delta.
  void forward(Step& step, Stream& stream, Saved& saved) const;
  /// dx: gradient of the stream, in and out.
  void backward(Step& step, const Tensor& dx, const Saved& saved) const;

  void add_parameters(std::vector<Parameter*>& all);

 private:
  std::int64_t inner() const { return down.weight.shape[1]; }
  void activate(Step& step, const Operand& y, const Tensor& projected) const;
};

Mlp make_mlp(const ModelConfig& config, const TensorParallel& tensor, std::int64_t layer, Keep keep);

}  // namespace verne
