#pragma once
#include <functional>
#include <memory>
#include <string>

#include "verne/tensor/queue.hpp"
#include "verne/tensor/tensor.hpp"

namespace verne {

enum class Reduce { sum, max };

/// A collective in flight on the queue it was given. Move-only. The tensors it reads and writes must stay
/// alive and untouched by other queues until it was waited for. Blocking backends return one that is already
/// done.
class Pending {
 public:
  Pending() = default;
  explicit Pending(Event done) : done_(std::move(done)) {}
  Pending(Pending&&) = default;
  Pending& operator=(Pending&&) = default;

  /// What `consumer` is given after this runs after the collective.
  void wait(Queue& consumer) { consumer.wait(done_); }

 private:
  Event done_;
};

/// Collectives on tensors among the ranks of one group. A communicator is made for one use; the order of its
/// calls is the same on every rank of the group. Calls enqueue on `queue` (CUDA) or block (CPU); on a meta
/// queue they are counted. Tensors are contiguous; dtypes f32, bf16, f64, i32, u8 (u8 and i32: no reduction
/// but max). bf16 sums are taken in float32 on the CPU. The result of a reduction has the same bits on all
/// ranks of the group and in every run of the same layout. Throws SystemError naming the operation and the
/// rank where the library fails.
class Communicator {
 public:
  virtual ~Communicator() = default;

  int rank() const { return rank_; }
  int size() const { return size_; }
  const std::string& name() const { return name_; }  ///< "tensor", "data", ...: for messages

  /// In place.
  virtual Pending all_reduce(Queue& queue, const Tensor& tensor, Reduce reduce) = 0;
  /// out = the ranks' `in`, in rank order; out.count() = size()·in.count(). `in` may be the caller's own
  /// block of `out`.
  virtual Pending all_gather(Queue& queue, const Tensor& out, const Tensor& in) = 0;
  /// out = block rank() of the sum over ranks of `in`; in.count() = size()·out.count(). `out` may be the
  /// caller's own block of `in`.
  virtual Pending reduce_scatter(Queue& queue, const Tensor& out, const Tensor& in) = 0;
  virtual Pending broadcast(Queue& queue, const Tensor& tensor, int root) = 0;
  virtual Pending send(Queue& queue, const Tensor& tensor, int to) = 0;
  virtual Pending receive(Queue& queue, const Tensor& tensor, int from) = 0;

 protected:
  Communicator(std::string name, int rank, int size) : name_(std::move(name)), rank_(rank), size_(size) {}

 private:
  std::string name_;
  int rank_, size_;
};

}  // namespace verne
