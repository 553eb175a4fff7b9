#pragma once
#include <optional>
#include <string>

#include "verne/host/model_host.hpp"
#include "verne/optim/adamw_optimizer.hpp"
#include "verne/train/step_record.hpp"

namespace verne {

struct EngineOptions {
  HostOptions host;
  AdamWSettings optimizer;
};

/// One step of training: forward and backward of every micro-batch, gradients reduced, one update. Stands on
/// a ModelHost and owns the optimizer's state.
class Engine {
 public:
  Engine(const ModelConfig& config, ParallelRuntime& runtime, const EngineOptions& options,
         const ArenaSizes& arenas);
  ~Engine();

  /// Of any rank of any layout, without communication.
  static HostPlan plan(const ModelConfig& config, const ParallelLayout& layout, const EngineOptions& options);
  /// Enqueues what a plan enqueues, on an engine over meta queues: a step, then a validation.
  static void rehearse(Engine& engine);

  ModelHost& host() { return host_; }
  ParallelRuntime& runtime() { return host_.runtime(); }

  /// Masters follow the weights; moments are zeroed. After weights were drawn or loaded.
  void weights_changed();
  void initialize_random(std::uint64_t seed);
  /// Optimizer state as named parts. After all three were restored, and the frozen weights, call
  /// `state_restored`.
  std::vector<TensorPart> optimizer_parts(OptimizerState state, ParameterStore::Share share) const {
    return optimizer_.parts(state, share);
  }
  /// What trains follows the restored masters; all weights are gathered.
  void state_restored();

  /// Enqueues update `step` (from 1) on a global batch. Collective over the layout. At most kAhead steps are
  /// unread.
  void train_step(const StepBatch& batch, std::int64_t step, double learning_rate,
                  const Signals& signals = {});
  /// The results of the oldest step not read yet; waits for its end.
  StepResult read_step() { return records_.read(); }
  std::int64_t unread_steps() const { return records_.unread(); }
  /// Whether the step that was given last has ended: always where the host itself computes.
  bool newest_step_ended() const { return records_.newest_arrived(); }
  static constexpr int kAhead = 2;

  /// Mean loss over the counted tokens of batches 1 to `steps`: one value on all ranks. Collective over the
  /// layout; waits for the device.
  double evaluate(const Batches& batches, std::int64_t steps);

  /// The step's first half: loss and reduced gradients, no update. The mean loss.
  double accumulate_gradients(const StepBatch& batch);

  /// The first weight, else the first gradient of this batch, in the model's order, that holds NaN or
  /// infinity on any rank of `world`; empty where none does. Computes the gradients again. Collective.
  std::string first_not_finite(const StepBatch& batch, const HostGroup& world);

  const MemoryUse& memory() { return runtime().compute().memory(); }

 private:
  LossTerms loss_terms() const { return {records_.loss_scale(), records_.loss_sum()}; }
  bool reports_loss();

  EngineOptions options_;
  ModelHost host_;
  AdamWOptimizer optimizer_;
  StepRecords records_;
  Buffer evaluation_sum_;
};

}  // namespace verne
