#pragma once
#include <vector>

#include "verne/nn/parameter_store.hpp"
#include "verne/ops/optimizer.hpp"

namespace verne {

struct AdamWSettings {
  double beta1 = 0.9, beta2 = 0.98, eps = 1e-5, weight_decay = 0.1;
  double clip_grad = 1.0;  ///< 0: none
};

enum class OptimizerState { master, exp_avg, exp_avg_sq };

/// AdamW over this rank's block of every trained bucket (ZeRO stage 1): float32 master weights and both
/// moments exist once among the ranks of a reduce group. Weight decay touches parameters of two or more
/// dimensions. Where weights are float32 they are their own master. State is zero until it is set.
class AdamWOptimizer {
 public:
  AdamWOptimizer(Queue& queue, const ParameterStore& store, const AdamWSettings& settings);

  /// What a step's scalars are (see StepScalar), on the host; step from 1.
  void fill_scalars(std::span<float> scalars, std::int64_t step, double learning_rate) const;

  /// Masters from the weights; moments zero.
  void initialize(Queue& queue);
  /// total += Σ gradient² over what this rank owns, each logical element counted on one rank of the whole
  /// layout alone. total: f64 [1].
  void add_sum_of_squares(Queue& queue, const Tensor& total) const;
  /// Clip factor, norm and skip flag from the whole gradient's sum of squares and the loss: see ClipFactor.
  void set_clip(Queue& queue, const Tensor& scalars, const Tensor& sum_of_squares, const Tensor& loss) const;
  /// Updates masters and moments, and the owned weights.
  void update(Queue& queue, const Tensor& scalars) const;

  /// One state as named parts of logical tensors.
  std::vector<TensorPart> parts(OptimizerState state, ParameterStore::Share share) const;
  /// Weights again from restored masters, this rank's blocks.
  void weights_from_masters(Queue& queue) const;

 private:
  /// The trained parameters of one pool.
  struct PoolState {
    int pool = 0;
    std::int64_t elements = 0;           ///< owned
    Buffer master, exp_avg, exp_avg_sq;  ///< f32 [elements]; no master where the weights are float32
    Buffer tiles;                        ///< see AdamW
  };
  std::vector<OptimizerSegment> segments_of(const Bucket& bucket, std::int64_t owned_begin) const;
  const ParameterStore::Pool& pool(const PoolState& state) const {
    return store_.pools()[static_cast<std::size_t>(state.pool)];
  }

  const ParameterStore& store_;
  AdamWSettings settings_;
  std::vector<PoolState> states_;
  std::vector<std::int64_t>
      owned_begin_;  ///< by bucket: where its block begins among the pool's owned elements
};

}  // namespace verne
