#pragma once
#include <memory>
#include <string>

#include "verne/comm/communicator.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/comm/watchdog.hpp"

namespace verne {

/// The communicator for a group on queues of `queue`'s kind: SingleCommunicator where the group is one rank,
/// else MPI for cpu, NCCL for cuda (on the queue's GPU), meta for meta. Collective over `group`, in the same
/// order on all its ranks. Watched where there is a watchdog.
std::unique_ptr<Communicator> make_communicator(std::string name, const HostGroup& group, const Queue& queue,
                                                Watchdog* watchdog = nullptr);

}  // namespace verne
