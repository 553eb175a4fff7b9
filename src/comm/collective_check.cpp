#include "collective_check.hpp"

#include "verne/base/error.hpp"

namespace verne {
namespace {

void check_contiguous(const Communicator& communicator, std::string_view operation, const Tensor& tensor) {
  require(tensor.contiguous(), "{} on communicator {}: tensor {} is strided", operation, communicator.name(),
          tensor.shape().text());
}

bool is_floating(DType type) {
  return type == DType::f32 || type == DType::bf16 || type == DType::f64;
}

void check_reducible(const Communicator& communicator, std::string_view operation, DType type,
                     Reduce reduce) {
  const bool integer = type == DType::i32 || type == DType::u8;
  require(is_floating(type) || (integer && reduce == Reduce::max),
          "{} ({}) on communicator {}: no such reduction of {}", operation,
          reduce == Reduce::sum ? "sum" : "max", communicator.name(), name(type));
}

/// whole.count() = size · part.count(), of one dtype.
void check_parts(const Communicator& communicator, std::string_view operation, const Tensor& whole,
                 const Tensor& part) {
  check_contiguous(communicator, operation, whole);
  check_contiguous(communicator, operation, part);
  require(whole.dtype() == part.dtype() && whole.count() == communicator.size() * part.count(),
          "{} on communicator {}: {} {} is not {} blocks of {} {}", operation, communicator.name(),
          name(whole.dtype()), whole.shape().text(), communicator.size(), name(part.dtype()),
          part.shape().text());
}

}  // namespace

void check_all_reduce(const Communicator& communicator, const Tensor& tensor, Reduce reduce) {
  check_contiguous(communicator, "all_reduce", tensor);
  check_reducible(communicator, "all_reduce", tensor.dtype(), reduce);
}

void check_all_gather(const Communicator& communicator, const Tensor& out, const Tensor& in) {
  check_parts(communicator, "all_gather", out, in);
}

void check_reduce_scatter(const Communicator& communicator, const Tensor& out, const Tensor& in) {
  check_parts(communicator, "reduce_scatter", in, out);
  check_reducible(communicator, "reduce_scatter", in.dtype(), Reduce::sum);
}

void check_broadcast(const Communicator& communicator, const Tensor& tensor, int root) {
  check_contiguous(communicator, "broadcast", tensor);
  require(root >= 0 && root < communicator.size(), "broadcast on communicator {} from rank {} of {}",
          communicator.name(), root, communicator.size());
}

void check_exchange(const Communicator& communicator, std::span<const Communicator::Message> sends,
                    std::span<const Communicator::Message> receives) {
  for (const std::span<const Communicator::Message> messages : {sends, receives}) {
    for (const Communicator::Message& message : messages) {
      check_contiguous(communicator, "exchange", message.tensor);
      require(message.peer >= 0 && message.peer < communicator.size() && message.peer != communicator.rank(),
              "exchange on communicator {} between rank {} and rank {} of {}", communicator.name(),
              communicator.rank(), message.peer, communicator.size());
    }
  }
}

void check_queue(const Communicator& communicator, const Queue& queue, QueueKind kind) {
  require(queue.kind() == kind, "communicator {} was called with a queue of another kind",
          communicator.name());
}

}  // namespace verne
