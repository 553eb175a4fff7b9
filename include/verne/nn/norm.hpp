#pragma once
#include "verne/nn/config.hpp"
#include "verne/nn/step.hpp"

namespace verne {

/// RMSNorm or LayerNorm1P of the residual stream: first adds the stream's delta, then normalises.
struct Norm {
  Parameter weight;
  Parameter bias;  ///< without slices for RMSNorm
  NormKind kind = NormKind::rms;
  double eps = 1e-6;

  struct Saved {
    Tensor s, mean, rstd;  ///< s: the stream after the addition; mean: LayerNorm alone
  };

  /// y = norm(sum + delta); the stream's sum becomes sum + delta. y: [stream tokens, hidden].
  void forward(Step& step, const Operand& y, Stream& stream, Saved& saved) const;
  /// y again, from what was saved: the same bits.
  void rebuild(Step& step, const Operand& y, const Saved& saved) const;
  /// dx: the gradient of the stream's sum. Branch::joins: dx += what reaches it through the norm;
  /// Branch::begins: dx = that.
  enum class Branch { joins, begins };
  void backward(Step& step, const Tensor& dx, const Tensor& dy, const Saved& saved,
                Branch branch = Branch::joins) const;

  void add_parameters(std::vector<Parameter*>& all);
};

Norm make_norm(const ModelConfig& config, const TensorParallel& tensor, const std::string& name);

}  // namespace verne
