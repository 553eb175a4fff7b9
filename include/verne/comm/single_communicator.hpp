#pragma once
#include "verne/comm/communicator.hpp"

namespace verne {

/// A group of one rank, on any queue: out = in. Copies where they are not the same memory, and makes an event
/// only then.
class SingleCommunicator final : public Communicator {
 public:
  explicit SingleCommunicator(std::string name) : Communicator(std::move(name), 0, 1) {}

  Pending all_reduce(Queue& queue, const Tensor& tensor, Reduce reduce) override;
  Pending all_gather(Queue& queue, const Tensor& out, const Tensor& in) override;
  Pending reduce_scatter(Queue& queue, const Tensor& out, const Tensor& in) override;
  Pending broadcast(Queue& queue, const Tensor& tensor, int root) override;
  /// There is nobody else: a message is an InternalError.
  Pending exchange(Queue& queue, std::span<const Message> sends, std::span<const Message> receives) override;
};

}  // namespace verne
