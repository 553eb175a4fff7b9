#pragma once
#include "verne/nn/embedding.hpp"
#include "verne/nn/norm.hpp"

namespace verne {

/// Final norm, vocabulary projection and cross-entropy, a slice of the tokens at a time: the logits of a
/// slice are turned into their gradient in place and used up at once, so neither logits nor their gradient
/// exist for a whole batch. Forward therefore already computes the head's gradients when training; backward
/// only hands dx on.
struct LossHead {
  Norm norm;
  VocabularyBlock block;

  struct Saved {
    Norm::Saved norm;
    Tensor dnormalised;  ///< [stream tokens, hidden]
  };

  /// `projection`: the head's weight, [block.rows, hidden]; with tied embeddings the embedding's. Adds to the
  /// batch's loss_sum, writes its log_probability and the gradients that the head itself has.
  void forward(Step& step, const Parameter& projection, Stream& stream, Saved& saved) const;
  /// Overwrites dx [stream tokens, hidden].
  void backward(Step& step, const Tensor& dx, const Saved& saved) const;

  /// loss_sum and log_probability alone.
  void evaluate(Step& step, const Parameter& projection, Stream& stream) const;
  /// Logits of all tokens, this rank's vocabulary block: [tokens, block.rows]. For comparisons on small
  /// models.
  void logits(Step& step, const Parameter& projection, Stream& stream, const Tensor& out) const;

 private:
  /// Where forward leaves gradients; nothing when evaluating.
  struct Gradients {
    Tensor dx;  ///< [tokens, hidden]
    Gradient dweight;
  };
  void run_slices(Step& step, const Parameter& projection, const Operand& x, Gradients* gradients) const;
};

LossHead make_loss_head(const ModelConfig& config, const TensorParallel& tensor);

}  // namespace verne
