#pragma once
#include "verne/nn/attention.hpp"
#include "verne/nn/mlp.hpp"

namespace verne {

/// One decoder layer: x += attention(norm(x)); x += mlp(norm(x)).
struct Block {
  Attention attention;
  Mlp mlp;

  struct Saved {
    Attention::Saved attention;
    Mlp::Saved mlp;
  };

  void forward(Step& step, Stream& stream, const RopeTable& rope, Saved& saved) const;
  /// dx: gradient of the stream, in and out.
  void backward(Step& step, const Tensor& dx, const RopeTable& rope, const Saved& saved) const;

  /// Runs the layer keeping nothing: `out` = the stream after it, which may be the stream's own sum. What
  /// layers save meanwhile lies in the replay arena.
  void forward_keeping_nothing(Step& step, const Tensor& out, Stream stream, const RopeTable& rope) const;

  void add_parameters(std::vector<Parameter*>& all);
};

Block make_block(const ModelConfig& config, const TensorParallel& tensor, std::int64_t layer, Keep keep);

/// A layer that keeps its input alone and runs again in backward: the same bits for a fraction of the memory.
struct RecomputedBlock {
  Block block;

  struct Saved {
    Tensor x;
  };

  void forward(Step& step, Stream& stream, const RopeTable& rope, Saved& saved) const;
  void backward(Step& step, const Tensor& dx, const RopeTable& rope, const Saved& saved) const;
};

}  // namespace verne
