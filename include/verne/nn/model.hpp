#pragma once
#include <optional>
#include <variant>
#include <vector>

#include "verne/nn/block.hpp"
#include "verne/nn/embedding.hpp"
#include "verne/nn/loss_head.hpp"
#include "verne/nn/recompute.hpp"

namespace verne {

/// A decoder: embedding, layers, loss head. Owns its parameters' descriptions; their memory is the engine's.
class Model {
 public:
  /// Throws UserError naming the layout where heads or the MLP cannot be cut among the tensor ranks.
  Model(const ModelConfig& config, const TensorParallel& tensor, Recompute recompute);

  const ModelConfig& config() const { return config_; }
  /// In the order of transformers' modules: embedding, layers, final norm, head.
  std::vector<Parameter*> parameters();

  using LayerSaved = std::variant<Block::Saved, RecomputedBlock::Saved>;
  struct Saved {
    std::vector<LayerSaved> layers;
    LossHead::Saved head;
  };

  /// From the batch's tokens to its loss_sum; keeps what backward needs.
  void forward(Step& step, const RopeTable& rope, Saved& saved) const;
  void backward(Step& step, const RopeTable& rope, const Saved& saved) const;
  /// Loss and log-probabilities alone; keeps nothing.
  void evaluate(Step& step, const RopeTable& rope) const;
  /// Logits of this rank's vocabulary block, [tokens, rows]; see LossHead::logits.
  void logits(Step& step, const RopeTable& rope, const Tensor& out) const;
  std::int64_t logit_columns() const { return head_.block.rows; }

 private:
  const Parameter& projection() const { return projection_ ? *projection_ : embedding_.weight; }
  Stream run_layers_keeping_nothing(Step& step, const RopeTable& rope) const;

  ModelConfig config_;
  Embedding embedding_;
  std::vector<std::variant<Block, RecomputedBlock>> layers_;
  LossHead head_;
  std::optional<Parameter> projection_;
};

/// Throws UserError where `tensor_ranks` cannot cut this model, naming the numbers that do.
void check_layout(const ModelConfig& config, int tensor_ranks);

}  // namespace verne
