#include "verne/comm/make_communicator.hpp"

#include <utility>

#include "verne/base/error.hpp"
#include "verne/comm/meta_communicator.hpp"
#include "verne/comm/mpi_communicator.hpp"
#include "verne/comm/single_communicator.hpp"
#if VERNE_WITH_CUDA
#include "verne/comm/nccl_communicator.hpp"
#endif

namespace verne {
namespace {

std::unique_ptr<Communicator> make_unwatched(std::string name, const HostGroup& group, const Queue& queue) {
  switch (queue.kind()) {
    case QueueKind::cpu:
      return std::make_unique<MpiCommunicator>(std::move(name), group);
    case QueueKind::meta:
      return std::make_unique<MetaCommunicator>(std::move(name), group.rank(), group.size());
    case QueueKind::cuda:
      break;
  }
#if VERNE_WITH_CUDA
  return std::make_unique<NcclCommunicator>(std::move(name), group, static_cast<const CudaQueue&>(queue));
#else
  throw InternalError("a cuda queue in a build without CUDA");
#endif
}

}  // namespace

std::unique_ptr<Communicator> make_communicator(std::string name, const HostGroup& group, const Queue& queue,
                                                Watchdog* watchdog) {
  if (group.size() == 1) return std::make_unique<SingleCommunicator>(std::move(name));
  auto communicator = make_unwatched(std::move(name), group, queue);
  if (!watchdog || queue.kind() == QueueKind::meta) return communicator;
  return watchdog->watch(std::move(communicator), group, queue);
}

}  // namespace verne
