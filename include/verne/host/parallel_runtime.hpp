#pragma once
#include <array>
#include <memory>
#include <vector>

#include "verne/comm/communicator.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/comm/make_communicator.hpp"
#include "verne/comm/process_grid.hpp"
#include "verne/comm/watchdog.hpp"
#include "verne/host/pipeline_schedule.hpp"
#include "verne/nn/config.hpp"
#include "verne/nn/parameter_store.hpp"
#include "verne/nn/step.hpp"
#include "verne/tensor/meta_queue.hpp"

namespace verne {

/// Who does what: one rank's place among all ranks, and how it uses it.
struct ParallelLayout {
  ProcessGrid grid;
  TensorParallel::Sequence sequence = TensorParallel::Sequence::whole;
  int chunks = 1;  ///< of each pipeline stage

  PipelinePlace pipeline() const {
    return {.stage = grid.pipeline(), .stages = grid.sizes().pipeline, .chunks = chunks};
  }
  /// Tokens of a micro-batch of `tokens` tokens that this rank holds.
  std::int64_t local_tokens(std::int64_t tokens) const { return tokens / grid.sizes().context; }
};

/// Queues and communicators of one rank of a layout. On GPUs each kind of communication has a queue of its
/// own beside the computation; on a CPU one queue is all of them.
class ParallelRuntime {
 public:
  enum class Lane { compute, upload, tensor, context, data, down, up };
  static constexpr std::size_t kLanes = 7;

  static ParallelRuntime cpu(const HostGroup& world, const ParallelLayout& layout, const ModelConfig& model,
                             int threads, Watchdog* watchdog = nullptr);
  struct Gpu {
    int index = 0;
    Determinism determinism = Determinism::fast;
    Link link = Link::direct;  ///< staged: several ranks share the GPU
  };
  /// A GPU rank. Throws SystemError in a build without CUDA.
  static ParallelRuntime cuda(const HostGroup& world, const ParallelLayout& layout, const ModelConfig& model,
                              const Gpu& gpu, Watchdog* watchdog = nullptr);
  /// Any rank of any layout in one process, running nothing: its queues record into `trace`.
  static ParallelRuntime meta(const ParallelLayout& layout, const ModelConfig& model, MetaTrace& trace,
                              Determinism determinism = Determinism::fast);

  const ParallelLayout& layout() const { return layout_; }
  const ProcessGrid& grid() const { return layout_.grid; }
  Queue& queue(Lane lane) { return *lanes_[static_cast<std::size_t>(lane)]; }
  Queue& compute() { return queue(Lane::compute); }

  Communicator& world() { return *world_; }      ///< all ranks
  Communicator& tensor() { return *tensor_; }    ///< ranks that share layers
  Communicator& context() { return *context_; }  ///< ranks that share rows
  Communicator& data() { return *data_; }        ///< ranks of the same weights: data · context
  /// All stages of a pipeline, for streams on their way to the head, and for gradients on their way back.
  Communicator& down() { return *down_; }
  Communicator& up() { return *up_; }
  /// The first and the last stage; nullptr elsewhere, and where there is one stage.
  Communicator* embedding() { return embedding_.get(); }
  /// The neighbouring tensor ranks that hold the same kv heads; nullptr where no two do.
  Communicator* kv_replicas() { return kv_replicas_.get(); }

  TensorParallel tensor_parallel() {
    return {.communicator = tensor_.get(), .queue = &queue(Lane::tensor), .sequence = layout_.sequence};
  }
  OwnerPlace owner_place() const;

 private:
  explicit ParallelRuntime(const ParallelLayout& layout) : layout_(layout) {}
  void connect(const HostGroup& world, const ModelConfig& model, Link link, Watchdog* watchdog);

  ParallelLayout layout_;
  FirstCopy first_copy_;
  std::vector<std::unique_ptr<Queue>> queues_;
  std::array<Queue*, kLanes> lanes_{};
  std::unique_ptr<Communicator> world_, tensor_, context_, data_, down_, up_, embedding_, kv_replicas_;
};

}  // namespace verne
