#pragma once
#include <memory>
#include <string>

#include "verne/tensor/queue.hpp"

struct CUstream_st;  // cudaStream_t without CUDA's headers

namespace verne {

/// The kernels' library handles and caches on one queue (cuBLASLt, cuDNN plans); defined by the CUDA kernels.
struct CudaLibraries;

/// Enqueues on a stream of one GPU. Exists only in builds with CUDA; constructing one needs a GPU.
class CudaQueue final : public Queue {
 public:
  enum class Priority { normal, high };  ///< of its kernels where several queues have some ready
  explicit CudaQueue(int device, Determinism determinism = Determinism::fast,
                     Priority priority = Priority::normal);
  ~CudaQueue() override;

  /// Makes the queue's GPU the calling thread's current one, as launches and library calls need.
  void use_device() const;

  /// GPUs that the driver shows; 0 where there is no driver.
  static int device_count();
  static std::string device_name(int device);
  /// The device's PCI address: tells it from all others of the machine, whatever this process sees of them.
  static std::string device_address(int device);
  /// Free and total bytes of the device's memory.
  struct DeviceMemory {
    std::int64_t free_bytes, total_bytes;
  };
  static DeviceMemory device_memory(int device);

  int device() const { return device_; }
  CUstream_st* stream() const { return stream_; }
  Determinism determinism() const { return determinism_; }
  int multiprocessors() const { return multiprocessors_; }

  /// Memory for one operation's own use, reused by the next on this queue. Grows (and then waits for the
  /// device).
  std::byte* workspace(std::int64_t bytes);

  /// Slot for the kernels' library state, made on first use and destroyed with the queue.
  std::unique_ptr<CudaLibraries, void (*)(CudaLibraries*)>& libraries() { return libraries_; }

  std::byte* allocate(std::int64_t bytes, MemoryKind kind) override;
  void release(std::byte* data, std::int64_t bytes, MemoryKind kind) override;
  using Queue::upload;
  void upload(const Tensor& to, std::span<const std::byte> from) override;
  void download(std::span<std::byte> to, const Tensor& from) override;
  void copy(const Tensor& to, const Tensor& from) override;
  void zero(const Tensor& tensor) override;
  std::byte* allocate_host(std::int64_t bytes) override;
  void release_host(std::byte* data) override;
  void copy_from_host(const Tensor& to, std::span<const std::byte> from) override;
  void copy_to_host(std::span<std::byte> to, const Tensor& from) override;
  Event record() override;
  void synchronize() override;

 private:
  int device_;
  Determinism determinism_;
  int multiprocessors_ = 0;
  CUstream_st* stream_ = nullptr;
  std::byte* workspace_ = nullptr;
  std::int64_t workspace_bytes_ = 0;
  class EventPool;  // events that are in nobody's hands
  std::shared_ptr<EventPool> events_;
  struct Staging;  // pinned memory that uploads pass through
  std::unique_ptr<Staging> staging_;
  std::unique_ptr<CudaLibraries, void (*)(CudaLibraries*)> libraries_;
};

}  // namespace verne
