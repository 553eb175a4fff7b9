#include "verne/comm/meta_communicator.hpp"

#include <algorithm>

#include "collective_check.hpp"
#include "verne/tensor/meta_queue.hpp"

namespace verne {
namespace {

double bytes_of_ring(const Tensor& whole, int size) {
  return static_cast<double>(whole.bytes()) * (size - 1) / size;
}

double bytes_of(std::span<const Communicator::Message> messages) {
  double bytes = 0;
  for (const Communicator::Message& message : messages) bytes += static_cast<double>(message.tensor.bytes());
  return bytes;
}

}  // namespace

MetaCommunicator::MetaCommunicator(std::string name, int rank, int size)
    : Communicator(std::move(name), rank, size) {
  require(rank >= 0 && rank < size, "communicator {}: rank {} of {}", this->name(), rank, size);
}

Pending MetaCommunicator::record(Queue& queue, const char* operation, double bytes,
                                 const Access& access) const {
  check_queue(*this, queue, QueueKind::meta);
  if (size() > 1) static_cast<MetaQueue&>(queue).record_operation(operation, {.bytes = bytes}, access);
  return Pending(queue.record(), operation);
}

Pending MetaCommunicator::all_reduce(Queue& queue, const Tensor& tensor, Reduce reduce) {
  check_all_reduce(*this, tensor, reduce);
  return record(queue, "AllReduce", 2 * bytes_of_ring(tensor, size()),
                {.reads = {tensor}, .writes = {tensor}});
}

Pending MetaCommunicator::all_gather(Queue& queue, const Tensor& out, const Tensor& in) {
  check_all_gather(*this, out, in);
  if (size() == 1 && out.raw() != in.raw()) queue.copy(out, in);
  return record(queue, "AllGather", bytes_of_ring(out, size()), {.reads = {in}, .writes = {out}});
}

Pending MetaCommunicator::reduce_scatter(Queue& queue, const Tensor& out, const Tensor& in) {
  check_reduce_scatter(*this, out, in);
  if (size() == 1 && out.raw() != in.raw()) queue.copy(out, in);
  return record(queue, "ReduceScatter", bytes_of_ring(in, size()), {.reads = {in}, .writes = {out}});
}

Pending MetaCommunicator::broadcast(Queue& queue, const Tensor& tensor, int root) {
  check_broadcast(*this, tensor, root);
  const Access access = root == rank() ? Access{.reads = {tensor}} : Access{.writes = {tensor}};
  return record(queue, "Broadcast", static_cast<double>(tensor.bytes()), access);
}

Pending MetaCommunicator::exchange(Queue& queue, std::span<const Message> sends,
                                   std::span<const Message> receives) {
  check_exchange(*this, sends, receives);
  Access access;
  for (const Message& message : sends) access.reads.push_back(message.tensor);
  for (const Message& message : receives) access.writes.push_back(message.tensor);
  return record(queue, "Exchange", std::max(bytes_of(sends), bytes_of(receives)), access);
}

}  // namespace verne
