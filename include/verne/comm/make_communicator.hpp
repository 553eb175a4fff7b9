#pragma once
#include <memory>
#include <string>

#include "verne/comm/communicator.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/comm/watchdog.hpp"

namespace verne {

/// How ranks on cuda queues reach each other: through NCCL, or, where ranks share a GPU, which NCCL refuses,
/// through host memory. Without meaning for other queues and for one rank.
enum class Link { direct, staged };

/// The communicator for a group on queues of `queue`'s kind: SingleCommunicator where the group is one rank,
/// else MPI for cpu, NCCL (on the queue's GPU) or StagedCommunicator for cuda, meta for meta. Collective over
/// `group`, in the same order on all its ranks. Watched where there is a watchdog.
std::unique_ptr<Communicator> make_communicator(std::string name, const HostGroup& group, const Queue& queue,
                                                Watchdog* watchdog = nullptr, Link link = Link::direct);

}  // namespace verne
