#pragma once
#include <span>

#include "verne/comm/communicator.hpp"

struct ompi_communicator_t;

namespace verne {

/// Posts messages in host memory and returns the event of their completion, which they reach where it is
/// waited for. A received message of another length than its tensor is an InternalError there.
Event post_messages(const Communicator& communicator, ompi_communicator_t* mpi,
                    std::span<const Communicator::Message> sends,
                    std::span<const Communicator::Message> receives);

}  // namespace verne
