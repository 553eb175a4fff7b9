#pragma once
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "verne/tensor/queue.hpp"
#include "verne/tensor/tensor.hpp"

namespace verne {

enum class Reduce { sum, max };

/// A collective or an exchange that was started on a queue. It is live until it was waited for; the tensors
/// that it reads and writes stay alive, and untouched by other queues, that long. Every backend returns a
/// live one, those that block too, so that a forgotten wait shows wherever it runs. Move-only; used on the
/// thread that calls MPI.
///   To destroy a live one is a bug, as it is with a thread that nobody joined: the program says so and
/// aborts, instead of hanging in a wait that nobody asked for or of giving memory away that messages still
/// arrive in. While an exception unwinds it is dropped: its receives are cancelled, nothing is waited for.
class [[nodiscard]] Pending {
 public:
  Pending() = default;  ///< nothing in flight: not live
  /// `operation` is a literal: its name in messages.
  Pending(Event done, const char* operation) : done_(std::move(done)), operation_(operation), live_(true) {}
  Pending(Pending&& other) noexcept
      : done_(std::move(other.done_)),
        operation_(other.operation_),
        live_(std::exchange(other.live_, false)) {}
  /// InternalError where this one is live.
  Pending& operator=(Pending&& other);
  ~Pending();

  /// What `consumer` is given after this runs after the collective. More than one queue may wait.
  void wait(Queue& consumer);
  /// The host waits until the collective is over.
  void wait_on_host();
  /// Whether it is over; a live one stays live.
  bool passed() const { return done_.passed(); }
  /// Has not been waited for.
  bool live() const { return live_; }

 private:
  Event done_;
  const char* operation_ = "";
  bool live_ = false;
};

/// Collectives on tensors among the ranks of one group. A communicator is made for one use; the order of its
/// collectives is the same on every rank of the group. Calls enqueue on `queue` (CUDA) or block (CPU; CUDA
/// where ranks share a GPU); on a meta queue they are counted. Queues outlive the communicators that they
/// were used with. Tensors are contiguous; dtypes f32, bf16, f64, i32, u8 (u8 and i32: no reduction but max).
/// bf16 sums are taken in float32 on the CPU. The result of a reduction has the same bits on all ranks of the
/// group and in every run of the same layout. Throws SystemError naming the operation and the rank where the
/// library fails.
class Communicator {
 public:
  /// A tensor on its way to or from another rank of the group.
  struct Message {
    Tensor tensor;
    int peer;
  };

  virtual ~Communicator() = default;

  int rank() const { return rank_; }
  int size() const { return size_; }
  const std::string& name() const { return name_; }  ///< "tensor", "data", ...: for messages

  /// In place.
  [[nodiscard]] virtual Pending all_reduce(Queue& queue, const Tensor& tensor, Reduce reduce) = 0;
  /// out = the ranks' `in`, in rank order; out.count() = size()·in.count(). `in` may be the caller's own
  /// block of `out`.
  [[nodiscard]] virtual Pending all_gather(Queue& queue, const Tensor& out, const Tensor& in) = 0;
  /// out = block rank() of the sum over ranks of `in`; in.count() = size()·out.count(). `out` may be the
  /// caller's own block of `in`.
  [[nodiscard]] virtual Pending reduce_scatter(Queue& queue, const Tensor& out, const Tensor& in) = 0;
  [[nodiscard]] virtual Pending broadcast(Queue& queue, const Tensor& tensor, int root) = 0;
  /// Sends and receives that progress together, of any dtype. Messages between two ranks match in the order
  /// of the calls and, within a call, in the order of the lists; two that match have equal bytes. No rank
  /// messages itself; lists may be empty, and only the ranks that have messages for each other need to call.
  /// Never blocks for another rank: without NCCL the messages are posted, and complete where the Pending is
  /// waited for.
  [[nodiscard]] virtual Pending exchange(Queue& queue, std::span<const Message> sends,
                                         std::span<const Message> receives) = 0;

  /// What the library met in the background, in words; empty where nothing is wrong. May be called from
  /// another thread than the others.
  virtual std::string fault() const { return {}; }

 protected:
  Communicator(std::string name, int rank, int size) : name_(std::move(name)), rank_(rank), size_(size) {}

 private:
  std::string name_;
  int rank_, size_;
};

}  // namespace verne
