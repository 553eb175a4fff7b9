#pragma once
#include <optional>
#include <variant>
#include <vector>

#include "verne/nn/block.hpp"
#include "verne/nn/chunk.hpp"
#include "verne/nn/embedding.hpp"
#include "verne/nn/loss_head.hpp"
#include "verne/nn/recompute.hpp"

namespace verne {

/// A run of a decoder's layers: with the embedding in front where it is the first, with the loss head behind
/// where it is the last. Owns its parameters' descriptions; their memory is the host's.
class Model {
 public:
  /// Throws UserError naming the layout where heads or the MLP cannot be cut among the tensor ranks.
  Model(const ModelConfig& config, const TensorParallel& tensor, const Chunk& chunk, Recompute recompute);

  const ModelConfig& config() const { return config_; }
  const Chunk& chunk() const { return chunk_; }
  /// In the order of transformers' modules: embedding, layers, final norm, head.
  std::vector<Parameter*> parameters();

  using LayerSaved = std::variant<Block::Saved, RecomputedBlock::Saved>;
  struct Saved {
    std::vector<LayerSaved> layers;
    LossHead::Saved head;
  };

  /// `in`, `out`: the residual stream [stream tokens, hidden] in front of the chunk and behind it. Without
  /// meaning, and empty, where the chunk begins with the embedding or ends with the head: that adds to the
  /// batch's loss_sum. `in` stays untouched until backward. Keeps in the step's `saved` what backward needs.
  void forward(Step& step, const RopeTable& rope, const Tensor& in, const Tensor& out, Saved& saved) const;
  /// `dx` [stream tokens, hidden]: the gradient of `out`, then that of `in`. With a head only the latter.
  void backward(Step& step, const RopeTable& rope, const Tensor& dx, const Saved& saved) const;
  /// forward that keeps nothing; the head gives loss and log-probabilities alone.
  void evaluate(Step& step, const RopeTable& rope, const Tensor& in, const Tensor& out) const;
  /// evaluate of a chunk with a head that gives logits of this rank's vocabulary block; see LossHead::logits.
  void logits(Step& step, const RopeTable& rope, const Tensor& in, const Tensor& out) const;
  std::int64_t logit_columns() const { return head_.block.rows; }

 private:
  const Parameter& projection() const { return projection_ ? *projection_ : embedding_.weight; }
  Stream run_layers_keeping_nothing(Step& step, const RopeTable& rope, const Tensor& in) const;

  ModelConfig config_;
  Chunk chunk_;
  Embedding embedding_;
  std::vector<std::variant<Block, RecomputedBlock>> layers_;
  LossHead head_;
  std::optional<Parameter> projection_;  ///< the head's own weight, or its copy of another stage's embedding
};

/// Throws UserError where `tensor_ranks` cannot cut this model, naming the numbers that do.
void check_layout(const ModelConfig& config, int tensor_ranks);

}  // namespace verne
