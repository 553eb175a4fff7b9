#pragma once
#include "verne/comm/communicator.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/tensor/cuda_queue.hpp"

struct ncclComm;  // ncclComm_t without NCCL's header

namespace verne {

/// Collectives between GPUs through NCCL, enqueued on the CUDA queue that they are given. Exists only in
/// builds with CUDA. A call never waits for the device. bf16 sums are rounded by NCCL at each hop. The making
/// is one of the group's host calls. Where a call failed, or an exception unwinds this rank, destruction
/// aborts the communicator instead of waiting for the others.
class NcclCommunicator final : public Communicator {
 public:
  /// Collective over `group`; `queue`'s GPU is this rank's for all calls.
  NcclCommunicator(std::string name, const HostGroup& group, const CudaQueue& queue);
  ~NcclCommunicator() override;

  Pending all_reduce(Queue& queue, const Tensor& tensor, Reduce reduce) override;
  Pending all_gather(Queue& queue, const Tensor& out, const Tensor& in) override;
  Pending reduce_scatter(Queue& queue, const Tensor& out, const Tensor& in) override;
  Pending broadcast(Queue& queue, const Tensor& tensor, int root) override;
  Pending exchange(Queue& queue, std::span<const Message> sends, std::span<const Message> receives) override;
  std::string fault() const override;

 private:
  CudaQueue& cuda_queue(Queue& queue) const;
  /// Throws SystemError with NCCL's text where a call, or an earlier one in the background, failed.
  void check(int result, const char* operation);

  int device_;
  ncclComm* communicator_ = nullptr;
  bool failed_ = false;
};

}  // namespace verne
