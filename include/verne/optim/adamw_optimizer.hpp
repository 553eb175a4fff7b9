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

/// Of what several tensor ranks hold alike: each its own, to be restored, or one of them for all, to be
/// saved.
enum class Copies { all, one };

/// AdamW over this data rank's block of every bucket (ZeRO stage 1): float32 master weights and both moments
/// exist once among the data ranks. Weight decay touches parameters of two or more dimensions. Where weights
/// are float32 they are their own master.
class AdamWOptimizer {
 public:
  struct Place {
    int data_rank = 0, data_ranks = 1;
    int tensor_rank = 0, tensor_ranks = 1;
    std::int64_t kv_replicas = 1;  ///< neighbouring tensor ranks that hold the same kv heads
  };
  AdamWOptimizer(Queue& queue, const ParameterStore& store, const AdamWSettings& settings,
                 const Place& place);

  /// Masters from the weights; moments zero.
  void initialize(Queue& queue);
  /// Device scalars of a step (from 1).
  void begin_step(Queue& queue, std::int64_t step, double learning_rate);
  /// total += Σ gradient² over what this rank owns, each logical element counted on one rank of the whole
  /// layout alone. total: f64 [1].
  void add_sum_of_squares(Queue& queue, const Tensor& total) const;
  /// Clip factor, norm and skip flag from the whole gradient's sum of squares.
  void set_clip(Queue& queue, const Tensor& sum_of_squares) const;
  /// Updates masters and moments, and the owned weights.
  void update(Queue& queue) const;
  /// f32 [1]: the gradient's norm before clipping.
  Tensor grad_norm() const;

  /// One state as named parts of logical tensors.
  std::vector<TensorPart> parts(OptimizerState state, Copies copies) const;
  /// The weights that belong to these states, one copy of each; `stored` is the files' dtype.
  std::vector<TensorPart> weight_parts(DType stored) const;
  /// Weights again from restored masters, this rank's blocks.
  void weights_from_masters(Queue& queue) const;

 private:
  /// Consecutive owned elements that are treated alike.
  struct Segment {
    std::int64_t flat = 0;   ///< place in the store's buffers
    std::int64_t owned = 0;  ///< place in the owned buffers
    std::int64_t count = 0;
    bool decays = false, counted = false;
  };
  void add_segments(const Bucket& bucket, std::int64_t owned_begin);
  Tensor state(OptimizerState which) const;
  enum class Lies { owned, flat };  ///< in a buffer of owned blocks alone, or of everything
  std::vector<TensorPart> owned_parts(const Tensor& local, Lies lies, DType stored, Copies copies) const;
  /// The first element of a parameter that another rank gives for this one, up to the end.
  std::int64_t given_by_others_from(const Parameter& parameter) const;

  const ParameterStore& store_;
  AdamWSettings settings_;
  Place place_;
  std::vector<Segment> segments_;
  std::int64_t owned_elements_ = 0;
  std::vector<std::int64_t> owned_begin_;  ///< by bucket
  Buffer master_, exp_avg_, exp_avg_sq_, scalars_;
};

}  // namespace verne
