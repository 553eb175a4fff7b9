#include "verne/comm/single_communicator.hpp"

#include "collective_check.hpp"

namespace verne {
namespace {

Pending copy_where_apart(Queue& queue, const Tensor& out, const Tensor& in) {
  if (out.raw() != in.raw() && in.count() > 0) queue.copy(out, in);
  return Pending(queue.record());
}

}  // namespace

Pending SingleCommunicator::all_reduce(Queue& queue, const Tensor& tensor, Reduce reduce) {
  check_all_reduce(*this, tensor, reduce);
  return Pending(queue.record());
}

Pending SingleCommunicator::all_gather(Queue& queue, const Tensor& out, const Tensor& in) {
  check_all_gather(*this, out, in);
  return copy_where_apart(queue, out, in);
}

Pending SingleCommunicator::reduce_scatter(Queue& queue, const Tensor& out, const Tensor& in) {
  check_reduce_scatter(*this, out, in);
  return copy_where_apart(queue, out, in);
}

Pending SingleCommunicator::broadcast(Queue& queue, const Tensor& tensor, int root) {
  check_broadcast(*this, tensor, root);
  return Pending(queue.record());
}

Pending SingleCommunicator::send(Queue& queue, const Tensor& tensor, int to) {
  check_peer(*this, "send", tensor, to);
  return Pending(queue.record());
}

Pending SingleCommunicator::receive(Queue& queue, const Tensor& tensor, int from) {
  check_peer(*this, "receive", tensor, from);
  return Pending(queue.record());
}

}  // namespace verne
