#pragma once
#include <span>
#include <string>
#include <string_view>

#include "verne/comm/communicator.hpp"

namespace verne {

// What every backend asks of a collective's arguments; InternalError with the communicator's name and the
// facts.

void check_all_reduce(const Communicator& communicator, const Tensor& tensor, Reduce reduce);
void check_all_gather(const Communicator& communicator, const Tensor& out, const Tensor& in);
void check_reduce_scatter(const Communicator& communicator, const Tensor& out, const Tensor& in);
void check_broadcast(const Communicator& communicator, const Tensor& tensor, int root);
/// Peers are other ranks of the group.
void check_exchange(const Communicator& communicator, std::span<const Communicator::Message> sends,
                    std::span<const Communicator::Message> receives);
/// The queue is of the communicator's kind.
void check_queue(const Communicator& communicator, const Queue& queue, QueueKind kind);

}  // namespace verne
