#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "verne/data/batches.hpp"
#include "verne/nn/model.hpp"
#include "verne/optim/adamw_optimizer.hpp"
#include "verne/tensor/meta_queue.hpp"
#include "verne/train/parameter_exchange.hpp"

namespace verne {

struct EngineOptions {
  DType dtype = DType::bf16;
  Recompute recompute = Recompute::none;
  Purpose purpose = Purpose::training;
  AdamWSettings optimizer;
  MicroBatchShape batch;                      ///< of every micro-batch
  std::int64_t bucket_elements = 40'000'000;  ///< as Megatron's distributed optimizer
};

/// Bytes of the engine's arenas.
struct ArenaSizes {
  std::int64_t saved = 0, replay = 0, scratch = 0;
};

/// What one rank needs, found by running a step on a meta queue.
struct EnginePlan {
  ArenaSizes arenas;
  MemoryUse memory;  ///< peak bytes by kind; a GPU's context and libraries not counted
  std::map<std::string, MetaQueue::Tally, std::less<>> operations;  ///< of one micro-batch and one update
};

/// One data rank's share of a global batch.
struct StepBatch {
  std::int64_t counted_tokens = 0;  ///< of the global batch, over all data ranks
  std::int64_t micro_batches = 0;   ///< of this rank
  std::function<MicroBatch(std::int64_t)> micro_batch;
};
/// The batch of `step` (from 1); `batches` must outlive it.
StepBatch step_batch(const Batches& batches, std::int64_t step);

struct StepResult {
  double loss = 0;       ///< mean over the counted tokens of the global batch, before the update
  double grad_norm = 0;  ///< before clipping
};

/// One step of training: forward and backward of every micro-batch, gradients reduced, one update. Owns the
/// model, its memory and the optimizer's state.
class Engine {
 public:
  Engine(const ModelConfig& config, ParallelRuntime& runtime, const EngineOptions& options,
         const ArenaSizes& arenas);
  ~Engine();

  static EnginePlan plan(const ModelConfig& config, const ProcessGrid& grid,
                         TensorParallel::Sequence sequence, const EngineOptions& options);

  const ModelConfig& config() const { return model_.config(); }
  ParallelRuntime& runtime() { return runtime_; }

  /// Weights drawn from (seed, name, element): the same logical tensors under every layout.
  void initialize_random(std::uint64_t seed);
  /// The weights as named parts, to load into; `stored` is the files' dtype. After loading, call
  /// `weights_changed`.
  std::vector<TensorPart> weight_parts(DType stored);
  /// Masters follow the weights; moments are zeroed.
  void weights_changed();
  /// Optimizer state as named parts. After restoring all three, call `masters_changed`.
  std::vector<TensorPart> optimizer_parts(OptimizerState state, Copies copies) const {
    return optimizer_->parts(state, copies);
  }
  /// The weights that this rank gives to a checkpoint; over all ranks each element once.
  std::vector<TensorPart> owned_weight_parts(DType stored) const { return optimizer_->weight_parts(stored); }
  /// Weights follow the restored masters.
  void masters_changed();

  /// Update `step` (from 1) on a global batch. Collective over the layout.
  StepResult train_step(const StepBatch& batch, std::int64_t step, double learning_rate);
  /// Mean loss over the counted tokens of batches 1 to `steps`. Collective over the layout.
  double evaluate(const Batches& batches, std::int64_t steps);

  /// Log-probabilities of the targets of one micro-batch; collective over its tensor ranks. [tokens]
  std::vector<float> log_probabilities(const MicroBatch& batch);
  /// This rank's vocabulary block of the logits of one micro-batch, in float32: [tokens, columns].
  std::vector<float> logits(const MicroBatch& batch);
  std::int64_t logit_columns() const { return model_.logit_columns(); }

  /// Gradients as named parts, as they stand after `accumulate_gradients`; for comparisons with a reference.
  std::vector<TensorPart> gradient_parts() const;
  /// The step's first half: loss and reduced gradients, no update. The mean loss.
  double accumulate_gradients(const StepBatch& batch);

  /// The first weight, else the first gradient, in model order that holds NaN or infinity on any rank of
  /// `world`; empty where none does.
  std::string first_not_finite(const HostGroup& world);

  const MemoryUse& memory() { return runtime_.compute().memory(); }

 private:
  void upload(const MicroBatch& batch);
  void set_loss_scale(std::int64_t counted_tokens);
  Step make_step(Mode mode);
  void run_micro_batch(ParameterExchange::MicroBatchPlace place);
  void update(std::int64_t step, double learning_rate);
  double reduced_loss(std::int64_t counted_tokens);

  ParallelRuntime& runtime_;
  EngineOptions options_;
  Model model_;
  ParameterStore store_;
  ParameterExchange exchange_;
  std::optional<AdamWOptimizer> optimizer_;
  Arena saved_, replay_, scratch_;
  Buffer rope_memory_;
  RopeTable rope_;
  Buffer tokens_, targets_, positions_, loss_mask_, starts_;
  Buffer loss_scale_, loss_sum_, log_probability_, sum_of_squares_;
  DeviceBatch batch_;
};

}  // namespace verne
