#pragma once
#include <vector>

#include "verne/nn/parameter_store.hpp"
#include "verne/nn/step.hpp"
#include "verne/train/parallel_runtime.hpp"

namespace verne {

/// Gives layers their weights and gradients, and moves both between data ranks beside the computation: a
/// bucket's gradients leave when backward has written the last of them, its updated weights are waited for by
/// their first reader.
class ParameterExchange final : public ParameterAccess {
 public:
  ParameterExchange(ParallelRuntime& runtime, const ParameterStore& store);
  /// Waits for what is still gathered: nobody reads it any more.
  ~ParameterExchange() override;

  void begin_step();
  enum class MicroBatchPlace { not_last, last };
  /// Gradients leave in the step's last micro-batch.
  void begin_micro_batch(MicroBatchPlace place);

  Operand weight(const Parameter& parameter) override;
  Gradient grad(const Parameter& parameter) override;
  void grad_done(const Parameter& parameter) override;

  /// After the last micro-batch: completes what is summed over tensor ranks and waits for all reductions.
  /// Each data rank's block of every bucket then holds the whole gradient.
  void finish_gradients();
  /// After an update of the owned blocks: starts gathering all buckets, in the order forward reads them.
  void gather_weights();
  /// The compute queue waits for all gathers: before weights are read other than through `weight`.
  void wait_for_weights();

 private:
  void reduce(const Bucket& bucket, std::size_t index);
  void wait_for_bucket(std::size_t bucket);
  void sum_kv_replicas(const Parameter& parameter);

  ParallelRuntime& runtime_;
  const ParameterStore& store_;
  MicroBatchPlace place_ = MicroBatchPlace::last;
  std::vector<char> written_;         ///< by parameter: this step
  std::vector<int> uses_left_;        ///< by parameter: this micro-batch
  std::vector<int> parameters_left_;  ///< by bucket: until it may leave
  std::vector<Pending> gathers_, reductions_;
  std::vector<char> gathering_, reducing_;  ///< by bucket: the Pending is still to be waited for
};

}  // namespace verne
