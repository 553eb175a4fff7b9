#pragma once
#include <functional>
#include <memory>

#include "verne/comm/mpi_communicator.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne {

/// Collectives on device memory for ranks that share a GPU: tensors pass through host memory of their queue
/// (pinned on CUDA), where MpiCommunicator works on them, so that results are to the bit its own. A
/// collective blocks the host until the other ranks came and all that its queue was given before is done; it
/// goes in rounds where a tensor is long. An exchange makes the host wait for the copies out of the device
/// alone; the wait for its Pending completes the messages and enqueues the copies in on the queue that the
/// exchange was given.
class StagedCommunicator final : public Communicator {
 public:
  /// Collective over `group`, whose MPI communicator is duplicated.
  StagedCommunicator(std::string name, const HostGroup& group);
  ~StagedCommunicator() override;

  Pending all_reduce(Queue& queue, const Tensor& tensor, Reduce reduce) override;
  Pending all_gather(Queue& queue, const Tensor& out, const Tensor& in) override;
  Pending reduce_scatter(Queue& queue, const Tensor& out, const Tensor& in) override;
  Pending broadcast(Queue& queue, const Tensor& tensor, int root) override;
  Pending exchange(Queue& queue, std::span<const Message> sends, std::span<const Message> receives) override;

 private:
  class MessageMemory;  // shared with the exchanges in flight

  /// Calls round(staged, begin, length) for consecutive parts [begin, begin + length) of `count` elements;
  /// `staged` is host memory of `ranks`·length elements that no copy touches any more.
  void in_rounds(Queue& queue, DType dtype, std::int64_t count, std::int64_t ranks,
                 const std::function<void(const Tensor&, std::int64_t, std::int64_t)>& round);

  MpiCommunicator mpi_;
  CpuQueue host_;
  HostBuffer staging_;
  Event staging_free_;  ///< passed once the last copy out of `staging_` has
  std::shared_ptr<MessageMemory> message_memory_;
};

}  // namespace verne
