#pragma once
#include <memory>
#include <vector>

#include "verne/comm/communicator.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/comm/process_grid.hpp"
#include "verne/comm/watchdog.hpp"
#include "verne/nn/config.hpp"
#include "verne/nn/step.hpp"
#include "verne/tensor/meta_trace.hpp"

namespace verne {

/// Queues and communicators of one rank of a layout. Collectives of tensor ranks and of data ranks have
/// queues of their own, so that both run beside the computation.
class ParallelRuntime {
 public:
  /// A CPU rank: one queue serves for everything.
  static ParallelRuntime cpu(const HostGroup& world, const ProcessGrid& grid, const ModelConfig& model,
                             TensorParallel::Sequence sequence, int threads, Watchdog* watchdog = nullptr);
  enum class Bits { fast, reproducible };
  /// A GPU rank. Throws SystemError in a build without CUDA.
  static ParallelRuntime cuda(const HostGroup& world, const ProcessGrid& grid, const ModelConfig& model,
                              TensorParallel::Sequence sequence, int device, Bits bits,
                              Watchdog* watchdog = nullptr);
  /// Any rank of any layout in one process, running nothing: for plans. `trace` must outlive it.
  static ParallelRuntime meta(MetaTrace& trace, const ProcessGrid& grid, const ModelConfig& model,
                              TensorParallel::Sequence sequence);

  const ProcessGrid& grid() const { return grid_; }
  Queue& compute() { return *queues_.front(); }
  Queue& tensor_queue() { return *queues_[queues_.size() > 1 ? 1 : 0]; }
  Queue& data_queue() { return *queues_[queues_.size() > 1 ? 2 : 0]; }
  Communicator& tensor() { return *tensor_; }
  Communicator& data() { return *data_; }
  /// The neighbouring tensor ranks that hold the same kv heads; nullptr where no two do.
  Communicator* kv_replicas() { return kv_replicas_.get(); }
  int kv_replica_count() const { return kv_replicas_ ? kv_replicas_->size() : 1; }
  TensorParallel tensor_parallel() {
    return {.communicator = tensor_.get(), .queue = &tensor_queue(), .sequence = sequence_};
  }

 private:
  ParallelRuntime(const ProcessGrid& grid, TensorParallel::Sequence sequence)
      : grid_(grid), sequence_(sequence) {}
  void connect(const HostGroup& world, const ModelConfig& model, Watchdog* watchdog);

  ProcessGrid grid_;
  TensorParallel::Sequence sequence_;
  std::vector<std::unique_ptr<Queue>> queues_;  // compute; on GPUs also tensor, data
  std::unique_ptr<Communicator> tensor_, data_, kv_replicas_;
};

}  // namespace verne
