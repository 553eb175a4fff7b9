#include "verne/comm/single_communicator.hpp"

#include "collective_check.hpp"

namespace verne {
namespace {

Pending copy_where_apart(Queue& queue, const Tensor& out, const Tensor& in, const char* operation) {
  if (out.raw() == in.raw() || in.count() == 0) return Pending({}, operation);
  queue.copy(out, in);
  return Pending(queue.record(), operation);
}

}  // namespace

Pending SingleCommunicator::all_reduce(Queue&, const Tensor& tensor, Reduce reduce) {
  check_all_reduce(*this, tensor, reduce);
  return Pending({}, "all_reduce");
}

Pending SingleCommunicator::all_gather(Queue& queue, const Tensor& out, const Tensor& in) {
  check_all_gather(*this, out, in);
  return copy_where_apart(queue, out, in, "all_gather");
}

Pending SingleCommunicator::reduce_scatter(Queue& queue, const Tensor& out, const Tensor& in) {
  check_reduce_scatter(*this, out, in);
  return copy_where_apart(queue, out, in, "reduce_scatter");
}

Pending SingleCommunicator::broadcast(Queue&, const Tensor& tensor, int root) {
  check_broadcast(*this, tensor, root);
  return Pending({}, "broadcast");
}

Pending SingleCommunicator::exchange(Queue&, std::span<const Message> sends,
                                     std::span<const Message> receives) {
  check_exchange(*this, sends, receives);
  return Pending({}, "exchange");
}

}  // namespace verne
