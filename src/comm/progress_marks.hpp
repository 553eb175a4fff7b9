#pragma once
#include <atomic>
#include <cstdint>
#include <memory>

#include "verne/tensor/queue.hpp"

namespace verne {

/// Two counters that one queue writes in its own order and the host reads at any time.
class ProgressMarks {
 public:
  virtual ~ProgressMarks() = default;
  /// When the queue gets there, `arrived()` or `done()` becomes `number`.
  virtual void mark_arrived(std::int64_t number) = 0;
  virtual void mark_done(std::int64_t number) = 0;
  virtual std::int64_t arrived() const = 0;
  virtual std::int64_t done() const = 0;
};

/// For queues that run an operation at once, and for the host itself.
class HostMarks final : public ProgressMarks {
 public:
  void mark_arrived(std::int64_t number) override { arrived_.store(number, std::memory_order_release); }
  void mark_done(std::int64_t number) override { done_.store(number, std::memory_order_release); }
  std::int64_t arrived() const override { return arrived_.load(std::memory_order_acquire); }
  std::int64_t done() const override { return done_.load(std::memory_order_acquire); }

 private:
  std::atomic<std::int64_t> arrived_{0}, done_{0};
};

/// For CUDA streams: the GPU writes the counters into pinned host memory. `queue` outlives them. Defined in
/// builds with CUDA.
class CudaQueue;
std::unique_ptr<ProgressMarks> make_cuda_marks(CudaQueue& queue);

}  // namespace verne
