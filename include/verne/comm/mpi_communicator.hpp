#pragma once
#include <memory>
#include <span>
#include <vector>

#include "verne/comm/communicator.hpp"
#include "verne/comm/host_group.hpp"

namespace verne {

/// Collectives on host memory through MPI, for cpu queues; every collective blocks. Reductions swap blocks
/// and add them in rank order, so their bits depend on the values and the group's order alone: not on timing,
/// sizes or MPI's choice of algorithm. f32 is added in float32, f64 in float64, bf16 in float32 with one
/// rounding at the end. A NaN on any rank makes the maximum NaN. An exchange is posted and completes where
/// its Pending is waited for, with an InternalError where a message is not as long as the tensor for it.
class MpiCommunicator final : public Communicator {
 public:
  /// Collective over `group`, whose MPI communicator is duplicated in one of its calls.
  MpiCommunicator(std::string name, const HostGroup& group);

  Pending all_reduce(Queue& queue, const Tensor& tensor, Reduce reduce) override;
  Pending all_gather(Queue& queue, const Tensor& out, const Tensor& in) override;
  Pending reduce_scatter(Queue& queue, const Tensor& out, const Tensor& in) override;
  Pending broadcast(Queue& queue, const Tensor& tensor, int root) override;
  Pending exchange(Queue& queue, std::span<const Message> sends, std::span<const Message> receives) override;

 private:
  using Bytes = std::span<std::byte>;
  using ConstBytes = std::span<const std::byte>;

  /// Sends to[r] to each other rank r while from[r] is filled with what it sends here; own entries are not
  /// looked at.
  void swap_blocks(const std::vector<ConstBytes>& to, const std::vector<Bytes>& from, const char* operation);
  /// At least that many bytes, kept for the next call.
  Bytes staging(std::int64_t bytes);

  HostGroup group_;
  std::unique_ptr<std::byte[]> staging_;
  std::int64_t staging_bytes_ = 0;
};

}  // namespace verne
