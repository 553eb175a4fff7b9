#include "verne/comm/nccl_communicator.hpp"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <exception>

#include "collective_check.hpp"
#include "verne/comm/agree.hpp"

namespace verne {
namespace {

ncclDataType_t nccl_type(DType type) {
  switch (type) {
    case DType::f32:
      return ncclFloat32;
    case DType::bf16:
      return ncclBfloat16;
    case DType::f16:
      return ncclFloat16;
    case DType::f64:
      return ncclFloat64;
    case DType::i32:
      return ncclInt32;
    case DType::i64:
      return ncclInt64;
    case DType::u32:
      return ncclUint32;
    case DType::u8:
    case DType::f8_e4m3:
      return ncclUint8;
  }
  throw InternalError("a dtype that NCCL does not know");
}

ncclRedOp_t nccl_operation(Reduce reduce) {
  return reduce == Reduce::sum ? ncclSum : ncclMax;
}

std::size_t size_of(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

void check_cuda(cudaError_t result, const char* call) {
  if (result != cudaSuccess) throw_system_error("{} failed: {}", call, cudaGetErrorString(result));
}

/// Rank 0's id, on every rank.
ncclUniqueId shared_id(const HostGroup& group) {
  ncclUniqueId id{};
  agree_after(group, [&] {
    if (group.rank() != 0) return;
    const ncclResult_t result = ncclGetUniqueId(&id);
    if (result != ncclSuccess) {
      throw_system_error("ncclGetUniqueId failed: {}; {}", ncclGetErrorString(result),
                         ncclGetLastError(nullptr));
    }
  });
  group.broadcast(std::as_writable_bytes(std::span(&id, 1)), 0);
  return id;
}

}  // namespace

NcclCommunicator::NcclCommunicator(std::string name, const HostGroup& group, const CudaQueue& queue)
    : Communicator(std::move(name), group.rank(), group.size()), device_(queue.device()) {
  const ncclUniqueId id = shared_id(group);
  check_cuda(cudaSetDevice(device_), "cudaSetDevice");
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 1;
  config.commName = this->name().c_str();
  ncclResult_t result = ncclSuccess;
  group.collective("ncclCommInitRankConfig",
                   [&] { result = ncclCommInitRankConfig(&communicator_, size(), id, rank(), &config); });
  if (result != ncclSuccess) {
    throw_system_error("ncclCommInitRankConfig of communicator {}, rank {} of {}, GPU {}: {}; {}",
                       this->name(), rank(), size(), device_, ncclGetErrorString(result),
                       ncclGetLastError(nullptr));
  }
}

NcclCommunicator::~NcclCommunicator() {
  if (!communicator_) return;
  if (failed_ || std::uncaught_exceptions() > 0) {
    ncclCommAbort(communicator_);
  } else {
    ncclCommFinalize(communicator_);
    ncclCommDestroy(communicator_);
  }
}

CudaQueue& NcclCommunicator::cuda_queue(Queue& queue) const {
  check_queue(*this, queue, QueueKind::cuda);
  auto& cuda = static_cast<CudaQueue&>(queue);
  require(cuda.device() == device_, "communicator {} of GPU {} was given a queue of GPU {}", name(), device_,
          cuda.device());
  check_cuda(cudaSetDevice(device_), "cudaSetDevice");
  return cuda;
}

void NcclCommunicator::check(int result, const char* operation) {
  auto status = static_cast<ncclResult_t>(result);
  if (status == ncclSuccess) ncclCommGetAsyncError(communicator_, &status);
  if (status == ncclSuccess || status == ncclInProgress) return;
  failed_ = true;
  throw_system_error("{} on communicator {}, rank {} of {}, GPU {}: {}; {}", operation, name(), rank(),
                     size(), device_, ncclGetErrorString(status), ncclGetLastError(communicator_));
}

std::string NcclCommunicator::fault() const {
  ncclResult_t status = ncclSuccess;
  if (const ncclResult_t asked = ncclCommGetAsyncError(communicator_, &status); asked != ncclSuccess)
    status = asked;
  if (status == ncclSuccess || status == ncclInProgress) return {};
  return fmt::format("NCCL met an error in the background: {}; {}", ncclGetErrorString(status),
                     ncclGetLastError(communicator_));
}

Pending NcclCommunicator::all_reduce(Queue& queue, const Tensor& tensor, Reduce reduce) {
  check_all_reduce(*this, tensor, reduce);
  CudaQueue& cuda = cuda_queue(queue);
  check(ncclAllReduce(tensor.raw(), tensor.raw(), size_of(tensor.count()), nccl_type(tensor.dtype()),
                      nccl_operation(reduce), communicator_, cuda.stream()),
        "ncclAllReduce");
  return Pending(cuda.record(), "all_reduce");
}

Pending NcclCommunicator::all_gather(Queue& queue, const Tensor& out, const Tensor& in) {
  check_all_gather(*this, out, in);
  CudaQueue& cuda = cuda_queue(queue);
  check(ncclAllGather(in.raw(), out.raw(), size_of(in.count()), nccl_type(in.dtype()), communicator_,
                      cuda.stream()),
        "ncclAllGather");
  return Pending(cuda.record(), "all_gather");
}

Pending NcclCommunicator::reduce_scatter(Queue& queue, const Tensor& out, const Tensor& in) {
  check_reduce_scatter(*this, out, in);
  CudaQueue& cuda = cuda_queue(queue);
  check(ncclReduceScatter(in.raw(), out.raw(), size_of(out.count()), nccl_type(in.dtype()), ncclSum,
                          communicator_, cuda.stream()),
        "ncclReduceScatter");
  return Pending(cuda.record(), "reduce_scatter");
}

Pending NcclCommunicator::broadcast(Queue& queue, const Tensor& tensor, int root) {
  check_broadcast(*this, tensor, root);
  CudaQueue& cuda = cuda_queue(queue);
  check(ncclBroadcast(tensor.raw(), tensor.raw(), size_of(tensor.count()), nccl_type(tensor.dtype()), root,
                      communicator_, cuda.stream()),
        "ncclBroadcast");
  return Pending(cuda.record(), "broadcast");
}

// Sends and receives of no bytes are left out on both sides.
Pending NcclCommunicator::exchange(Queue& queue, std::span<const Message> sends,
                                   std::span<const Message> receives) {
  check_exchange(*this, sends, receives);
  CudaQueue& cuda = cuda_queue(queue);
  check(ncclGroupStart(), "ncclGroupStart");
  ncclResult_t result = ncclSuccess;  // of the first call that fails; the group is closed all the same
  for (const Message& message : receives) {
    if (message.tensor.count() == 0 || result != ncclSuccess) continue;
    result = ncclRecv(message.tensor.raw(), size_of(message.tensor.bytes()), ncclUint8, message.peer,
                      communicator_, cuda.stream());
  }
  for (const Message& message : sends) {
    if (message.tensor.count() == 0 || result != ncclSuccess) continue;
    result = ncclSend(message.tensor.raw(), size_of(message.tensor.bytes()), ncclUint8, message.peer,
                      communicator_, cuda.stream());
  }
  const ncclResult_t closed = ncclGroupEnd();
  check(result != ncclSuccess ? result : closed, "exchange (ncclSend, ncclRecv)");
  return Pending(cuda.record(), "exchange");
}

}  // namespace verne
