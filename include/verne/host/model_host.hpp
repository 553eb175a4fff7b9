#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "verne/data/batches.hpp"
#include "verne/host/batch_feed.hpp"
#include "verne/host/parameter_exchange.hpp"
#include "verne/host/pipeline_link.hpp"
#include "verne/nn/model.hpp"
#include "verne/tensor/meta_trace.hpp"

namespace verne {

struct HostOptions {
  DType dtype = DType::bf16;
  Recompute recompute = Recompute::none;
  Purpose purpose = Purpose::training;
  MicroBatchShape batch;             ///< of every micro-batch
  std::int64_t micro_batches = 1;    ///< of a training pass
  std::int64_t bucket_elements = 0;  ///< that close a bucket; 0: see model_host.cpp
  /// Which tensors train, by Hugging Face name; not set: all. The tensors of one parameter agree.
  std::function<bool(std::string_view)> trains;
  Determinism determinism = Determinism::fast;  ///< of the runtime, for a plan
};

/// Bytes of the arenas.
struct ArenaSizes {
  std::int64_t slot = 0;  ///< of each micro-batch and chunk in flight
  std::int64_t replay = 0, scratch = 0;
};
/// For meta queues: what is needed is what was used.
inline constexpr ArenaSizes kUnboundedArenas = {Arena::kUnbounded, Arena::kUnbounded, Arena::kUnbounded};
/// Micro-batches of padding alone, of the shape that a host expects.
StepBatch blank_batch(const HostOptions& options);

/// What one rank needs, found by running on meta queues.
struct HostPlan {
  ArenaSizes arenas;
  int slots = 0;
  MemoryUse memory;  ///< peak bytes by kind; a GPU's context and libraries not counted
};

/// Where the loss goes and how gradients are scaled; see DeviceBatch.
struct LossTerms {
  Tensor scale, sum;
};

/// The chunks of a model that one rank holds, with their memory, and the one runner of their schedules: what
/// training, scoring and generation stand on.
class ModelHost {
 public:
  ModelHost(const ModelConfig& config, ParallelRuntime& runtime, const HostOptions& options,
            const ArenaSizes& arenas);
  ~ModelHost();

  /// Of a host for inference: log-probabilities of a few micro-batches. Of any rank of any layout, without
  /// communication.
  static HostPlan plan(const ModelConfig& config, const ParallelLayout& layout, const HostOptions& options);
  /// What was found once something ran on meta queues that record into `trace`.
  HostPlan planned(const MetaTrace& trace) const;

  const ModelConfig& config() const { return config_; }
  const HostOptions& options() const { return options_; }
  ParallelRuntime& runtime() { return runtime_; }
  const ParameterStore& store() const { return store_; }
  ParameterExchange& exchange() { return exchange_; }
  bool has_head() const { return chunks_.back().chunk().head; }
  std::span<Model> chunks() { return chunks_; }

  /// Forward and backward of every micro-batch; gradients are reduced as they are done. Collective over the
  /// layout.
  void train(const StepBatch& batch, const LossTerms& loss);
  /// Forward alone: adds to the loss's sum.
  void evaluate(const StepBatch& batch, const LossTerms& loss);

  /// Log-probabilities of the targets of some micro-batches, in the rows' own order, given to `done` where
  /// the head is. Waits for the device. Collective over a data rank's layout.
  void log_probabilities(const StepBatch& batch,
                         const std::function<void(std::int64_t, std::span<const float>)>& done);
  /// This rank's vocabulary block of the logits of one micro-batch, in float32 and the rows' own order: [rows
  /// · seq_length, columns]; empty where the head is not. For comparisons on small models.
  std::vector<float> logits(const MicroBatch& batch);
  std::int64_t logit_columns() const;

  /// Weights drawn from (seed, name, element): the same logical tensors under every layout.
  void initialize_random(std::uint64_t seed);
  /// This rank's block of the weights as named parts, to load into. Then call `weights_loaded`.
  std::vector<TensorPart> loadable_parts(DType stored,
                                         ParameterStore::Which which = ParameterStore::Which::all);
  /// Gathers what the other ranks of the reduce group have loaded.
  void weights_loaded();
  /// Weights to save or look at.
  std::vector<TensorPart> weight_parts(DType stored, ParameterStore::Share share,
                                       ParameterStore::Which which = ParameterStore::Which::all);

 private:
  /// What an evaluating pass does with the chunk that has the head.
  using Head = std::function<void(Step&, std::int64_t micro_batch, const Model&, const Tensor& in)>;
  PipelineSchedule forward_schedule_for(std::int64_t micro_batches) const;
  void evaluate_with(const StepBatch& batch, const LossTerms& loss, const Head& head);
  std::vector<Hop> down_hops(const PipelineSchedule& schedule) const;
  std::vector<Hop> up_hops(const PipelineSchedule& schedule) const;
  const Tensor& output(std::size_t run) const { return outputs_[run % outputs_.size()].tensor(); }
  const Tensor& gradient(std::size_t run) const { return gradients_[run % gradients_.size()].tensor(); }
  Tensor input(const Action& action) const;
  Step make_step(const DeviceBatch& batch, Arena* saved);
  DeviceBatch batch_for(const Action& action, const LossTerms& loss);
  void fetch_next(const Action& action, const StepBatch& batch);
  void in_row_order(const Tensor& rows, const std::function<void(const Tensor&)>& take);
  void make_rope();

  ModelConfig config_;
  ParallelRuntime& runtime_;
  HostOptions options_;
  PipelinePlace place_;
  PipelineSchedule training_;
  std::vector<Model> chunks_;
  ParameterStore store_;
  ParameterExchange exchange_;
  BatchFeed feed_;
  PipelineLink down_, up_;
  std::vector<Arena> slots_;         ///< by slot
  std::vector<Model::Saved> saved_;  ///< by slot
  Arena replay_, scratch_;
  Buffer rope_memory_;
  RopeTable rope_;
  Buffer unread_loss_, unit_scale_;  ///< of passes whose loss nobody asks for
  /// Streams between stages: those received, which live until backward; those sent; their gradients.
  std::vector<Buffer> inputs_, outputs_, gradients_;
};

}  // namespace verne
