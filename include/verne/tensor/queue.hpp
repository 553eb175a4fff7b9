#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string_view>

#include "verne/tensor/tensor.hpp"

namespace verne {

/// Whether kernels of a GPU give the same bits in every run, at some cost. Those of a CPU always do.
enum class Determinism { fast, deterministic };

enum class QueueKind { cpu, cuda, meta };

/// What memory is for; a dry run shows the peak of each.
enum class MemoryKind { weights, gradients, optimizer, activations, scratch, communication, batch };
inline constexpr int kMemoryKinds = 7;
std::string_view name(MemoryKind kind);

/// Live and peak bytes by kind.
struct MemoryUse {
  std::array<std::int64_t, kMemoryKinds> live{};
  std::array<std::int64_t, kMemoryKinds> peak{};
  std::int64_t peak_total = 0;

  void add(MemoryKind kind, std::int64_t bytes);
  void remove(MemoryKind kind, std::int64_t bytes);
  std::int64_t live_total() const;
};

class Queue;

/// A point in a queue's work that another queue or the host can wait for. Move-only; default-constructed:
/// already done.
class Event {
 public:
  struct State {
    virtual ~State() = default;
    /// What `consumer` is given after this runs after the event.
    virtual void hold(Queue& consumer) = 0;
    virtual void wait_on_host() = 0;
    virtual bool passed() = 0;
  };
  Event() = default;
  explicit Event(std::unique_ptr<State> state) : state_(std::move(state)) {}
  State* state() const { return state_.get(); }

  /// The host waits until the queue's work has come past this point.
  void wait_on_host() const {
    if (state_) state_->wait_on_host();
  }
  bool passed() const { return !state_ || state_->passed(); }

 private:
  std::unique_ptr<State> state_;
};

/// An ordered stream of work on one device, and that device's memory.
///   cpu   runs an operation at once, on `threads()` threads
///   cuda  enqueues on a CUDA stream
///   meta  runs nothing and owns nothing: it records what would have run and how much memory it took
class Queue {
 public:
  virtual ~Queue() = default;
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  QueueKind kind() const { return kind_; }

  /// Memory of this queue's device, 256-byte aligned; SystemError with sizes where there is not enough.
  /// Content undefined.
  virtual std::byte* allocate(std::int64_t bytes, MemoryKind kind) = 0;
  virtual void release(std::byte* data, std::int64_t bytes, MemoryKind kind) = 0;

  /// Ordered copies of contiguous tensors of equal bytes. `upload`'s source may be changed once the call
  /// returns; `download` waits until the data has arrived. On meta, `download` zeroes `to`.
  virtual void upload(const Tensor& to, std::span<const std::byte> from) = 0;
  virtual void download(std::span<std::byte> to, const Tensor& from) = 0;
  virtual void copy(const Tensor& to, const Tensor& from) = 0;
  /// Sets every byte of a contiguous tensor to zero.
  virtual void zero(const Tensor& tensor) = 0;

  /// Host memory that copies to and from the device run beside everything else: pinned on cuda, ordinary
  /// memory elsewhere. 256-byte aligned, content undefined.
  virtual std::byte* allocate_host(std::int64_t bytes) = 0;
  virtual void release_host(std::byte* data) = 0;
  /// Ordered copies between a contiguous tensor and memory of `allocate_host`, which nobody touches until an
  /// event recorded after the call has passed.
  virtual void copy_from_host(const Tensor& to, std::span<const std::byte> from) = 0;
  virtual void copy_to_host(std::span<std::byte> to, const Tensor& from) = 0;
  /// The host says that it is about to write or read memory of `allocate_host`. Only meta queues listen.
  enum class HostAccess { read, write };
  virtual void host_access(std::span<const std::byte>, HostAccess) {}

  virtual Event record() = 0;
  /// What is enqueued after this waits for the event.
  void wait(const Event& event) {
    if (event.state()) event.state()->hold(*this);
  }
  /// The host waits for all that was enqueued.
  virtual void synchronize() = 0;

  const MemoryUse& memory() const { return memory_; }

  template <class T>
  void upload(const Tensor& to, std::span<const T> from) {
    upload(to, std::as_bytes(from));
  }
  template <class T>
  T download_value(const Tensor& from) {
    T value{};
    download(std::as_writable_bytes(std::span(&value, 1)), from);
    return value;
  }

 protected:
  explicit Queue(QueueKind kind) : kind_(kind) {}
  MemoryUse memory_;

 private:
  QueueKind kind_;
};

/// Owns one allocation of a queue, which must outlive it.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Queue& queue, std::int64_t bytes, MemoryKind kind);
  Buffer(Queue& queue, DType dtype, Shape shape, MemoryKind kind);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;

  std::int64_t bytes() const { return bytes_; }
  std::byte* data() const { return data_; }
  /// The allocation as the tensor it was made for, or as `shape` of `dtype` from its start.
  const Tensor& tensor() const { return tensor_; }
  Tensor as(DType dtype, Shape shape) const;

 private:
  Queue* queue_ = nullptr;
  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
  MemoryKind kind_ = MemoryKind::scratch;
  Tensor tensor_;
};

/// Owns host memory of a queue, which must outlive it.
class HostBuffer {
 public:
  HostBuffer() = default;
  HostBuffer(Queue& queue, std::int64_t bytes);
  ~HostBuffer();
  HostBuffer(HostBuffer&& other) noexcept;
  HostBuffer& operator=(HostBuffer&& other) noexcept;

  std::span<std::byte> bytes() const { return bytes_; }
  std::span<std::byte> bytes(std::int64_t begin, std::int64_t count) const {
    return bytes_.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count));
  }

 private:
  Queue* queue_ = nullptr;
  std::span<std::byte> bytes_;
};

}  // namespace verne
