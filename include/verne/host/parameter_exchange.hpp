#pragma once
#include <vector>

#include "verne/host/parallel_runtime.hpp"
#include "verne/nn/parameter_store.hpp"
#include "verne/nn/step.hpp"

namespace verne {

/// Gives layers their weights and gradients, and moves both between the ranks of a reduce group beside the
/// computation: a bucket's gradients leave once the step's last use of them is done, its updated weights are
/// waited for by their first reader.
class ParameterExchange final : public ParameterAccess {
 public:
  ParameterExchange(ParallelRuntime& runtime, const ParameterStore& store);
  ~ParameterExchange() override;
  ParameterExchange(const ParameterExchange&) = delete;
  ParameterExchange& operator=(const ParameterExchange&) = delete;

  /// A step in which every parameter is used `uses` times in each of `micro_batches` micro-batches, in
  /// whatever order.
  void begin_step(std::int64_t micro_batches);

  Operand weight(const Parameter& parameter) override;
  Gradient grad(const Parameter& parameter) override;
  void grad_done(const Parameter& parameter) override;

  /// After the last backward: waits for all reductions and completes copies. This rank's block of every
  /// bucket then holds the whole gradient, all copies with the same bits.
  void finish_gradients();
  /// After an update of the owned blocks: starts gathering all buckets, in the order forward reads them.
  enum class Pools { trained, all };
  void gather_weights(Pools pools = Pools::trained);
  /// The compute queue waits for all gathers: before weights are read other than through `weight`.
  void wait_for_weights();

 private:
  void reduce(std::size_t bucket);
  void sum_kv_replicas(Queue& queue, const Bucket& bucket);
  void complete(std::size_t bucket);
  void wait_for_bucket(std::size_t bucket);

  ParallelRuntime& runtime_;
  const ParameterStore& store_;
  std::vector<char> written_;                  ///< by parameter: this step
  std::vector<std::int64_t> uses_left_;        ///< by parameter: this step
  std::vector<std::int64_t> parameters_left_;  ///< by bucket: until it may leave
  std::vector<Pending> gathers_, reductions_;  ///< by bucket
};

}  // namespace verne
