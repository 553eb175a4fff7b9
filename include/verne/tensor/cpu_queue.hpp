#pragma once
#include <functional>
#include <memory>

#include "verne/tensor/queue.hpp"

namespace verne {

/// Host memory, 256-byte aligned; SystemError that names the purpose where there is not enough.
std::byte* allocate_aligned(std::int64_t bytes, std::string_view purpose);
void release_aligned(std::byte* data);

/// Runs operations at once on the calling thread and a pool of `threads` - 1 helpers.
class CpuQueue : public Queue {
 public:
  explicit CpuQueue(int threads = 1);
  ~CpuQueue() override;

  int threads() const;
  /// Calls body(begin, end) for a partition of [0, count) into blocks of at least `grain`, in parallel. The
  /// partition depends on (count, grain) and `threads()`; bodies must write disjoint data. The first
  /// exception is rethrown.
  void parallel_for(std::int64_t count, std::int64_t grain,
                    const std::function<void(std::int64_t, std::int64_t)>& body);

  std::byte* allocate(std::int64_t bytes, MemoryKind kind) override;
  void release(std::byte* data, std::int64_t bytes, MemoryKind kind) override;
  using Queue::upload;
  void upload(const Tensor& to, std::span<const std::byte> from) override;
  void download(std::span<std::byte> to, const Tensor& from) override;
  void copy(const Tensor& to, const Tensor& from) override;
  void zero(const Tensor& tensor) override;
  std::byte* allocate_host(std::int64_t bytes) override;
  void release_host(std::byte* data) override;
  void copy_from_host(const Tensor& to, std::span<const std::byte> from) override { upload(to, from); }
  void copy_to_host(std::span<std::byte> to, const Tensor& from) override { download(to, from); }
  Event record() override { return {}; }
  void synchronize() override {}

 private:
  class Pool;
  std::unique_ptr<Pool> pool_;
};

}  // namespace verne
