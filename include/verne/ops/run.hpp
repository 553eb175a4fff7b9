#pragma once
#include "verne/tensor/cpu_queue.hpp"
#include "verne/tensor/meta_queue.hpp"
#if VERNE_WITH_CUDA
#include "verne/tensor/cuda_queue.hpp"
#endif

namespace verne {

/// Marks a range for Nsight on CUDA queues; nothing elsewhere.
class ProfileRange {
 public:
  ProfileRange(const Queue& queue, const char* operation);
  ~ProfileRange();
  ProfileRange(const ProfileRange&) = delete;
  ProfileRange& operator=(const ProfileRange&) = delete;

 private:
  bool open_ = false;
};

/// Runs an operation: checks its arguments and launches the kernel of the queue's kind. An operation is a
/// struct with `kName`, `check()`, `cost()`, `access()` and a `launch` for CpuQueue and CudaQueue; a missing
/// kernel is a link error naming it. One that needs much memory beside its arguments has a `workspace_bound`.
template <class Operation>
void run(Queue& queue, const Operation& operation) {
  operation.check();
  switch (queue.kind()) {
    case QueueKind::cpu:
      launch(static_cast<CpuQueue&>(queue), operation);
      return;
    case QueueKind::meta: {
      auto& meta = static_cast<MetaQueue&>(queue);
      meta.record_operation(Operation::kName, operation.cost(), operation.access());
      if constexpr (requires { workspace_bound(operation, meta.determinism()); })
        meta.record_workspace(workspace_bound(operation, meta.determinism()));
      return;
    }
    case QueueKind::cuda: {
#if VERNE_WITH_CUDA
      const ProfileRange range(queue, Operation::kName);
      launch(static_cast<CudaQueue&>(queue), operation);
      return;
#else
      throw InternalError("a CUDA queue in a build without CUDA");
#endif
    }
  }
}

}  // namespace verne
