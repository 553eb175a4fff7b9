#include "verne/comm/make_communicator.hpp"

#include <utility>

#include "verne/base/error.hpp"
#include "verne/comm/meta_communicator.hpp"
#include "verne/comm/mpi_communicator.hpp"
#include "verne/comm/single_communicator.hpp"
#include "verne/comm/staged_communicator.hpp"
#if VERNE_WITH_CUDA
#include "verne/comm/nccl_communicator.hpp"
#endif

namespace verne {
namespace {

std::unique_ptr<Communicator> make_direct_cuda([[maybe_unused]] std::string name,
                                               [[maybe_unused]] const HostGroup& group,
                                               [[maybe_unused]] const Queue& queue) {
#if VERNE_WITH_CUDA
  return std::make_unique<NcclCommunicator>(std::move(name), group, static_cast<const CudaQueue&>(queue));
#else
  throw InternalError("a cuda queue in a build without CUDA");
#endif
}

}  // namespace

std::unique_ptr<Communicator> make_communicator(std::string name, const HostGroup& group, const Queue& queue,
                                                Watchdog* watchdog, Link link) {
  if (group.size() == 1) return std::make_unique<SingleCommunicator>(std::move(name));
  if (queue.kind() == QueueKind::meta)
    return std::make_unique<MetaCommunicator>(std::move(name), group.rank(), group.size());
  std::unique_ptr<Communicator> communicator;
  ExchangeEnd exchange_end = ExchangeEnd::where_waited_for;
  if (queue.kind() == QueueKind::cpu) {
    communicator = std::make_unique<MpiCommunicator>(std::move(name), group);
  } else if (link == Link::staged) {
    communicator = std::make_unique<StagedCommunicator>(std::move(name), group);
  } else {
    communicator = make_direct_cuda(std::move(name), group, queue);
    exchange_end = ExchangeEnd::in_queue_order;
  }
  return watchdog ? watchdog->watch(std::move(communicator), group, exchange_end) : std::move(communicator);
}

}  // namespace verne
