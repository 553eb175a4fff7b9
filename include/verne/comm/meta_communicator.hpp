#pragma once
#include "verne/comm/communicator.hpp"
#include "verne/tensor/meta_trace.hpp"

namespace verne {

/// Any rank of a group of any size, on a meta queue: records "AllReduce", "AllGather", "ReduceScatter",
/// "Broadcast" and "Exchange" with the tensors that this rank reads and writes, and with the bytes that it
/// sends or receives, whichever is more, in the ring algorithms, for n bytes in the whole tensor and p ranks:
/// all_reduce 2n(p−1)/p, all_gather and reduce_scatter n(p−1)/p, broadcast n. A group of one records no
/// operation but the copies that it makes.
class MetaCommunicator final : public Communicator {
 public:
  MetaCommunicator(std::string name, int rank, int size);

  Pending all_reduce(Queue& queue, const Tensor& tensor, Reduce reduce) override;
  Pending all_gather(Queue& queue, const Tensor& out, const Tensor& in) override;
  Pending reduce_scatter(Queue& queue, const Tensor& out, const Tensor& in) override;
  Pending broadcast(Queue& queue, const Tensor& tensor, int root) override;
  Pending exchange(Queue& queue, std::span<const Message> sends, std::span<const Message> receives) override;

 private:
  Pending record(Queue& queue, const char* operation, double bytes, const Access& access) const;
};

}  // namespace verne
