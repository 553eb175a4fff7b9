#pragma once
#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {

/// Looks like a device: local memory is reached through copies alone, here counted. In host memory, so that
/// tests can fill it.
class DeviceLikeQueue final : public Queue {
 public:
  DeviceLikeQueue() : Queue(QueueKind::cuda) {}
  std::int64_t copies = 0;

  std::byte* allocate(std::int64_t bytes, MemoryKind kind) override { return host_.allocate(bytes, kind); }
  void release(std::byte* data, std::int64_t bytes, MemoryKind kind) override {
    host_.release(data, bytes, kind);
  }
  using Queue::upload;
  void upload(const Tensor& to, std::span<const std::byte> from) override {
    ++copies;
    host_.upload(to, from);
  }
  void download(std::span<std::byte> to, const Tensor& from) override {
    ++copies;
    host_.download(to, from);
  }
  void copy(const Tensor& to, const Tensor& from) override { host_.copy(to, from); }
  void zero(const Tensor& tensor) override { host_.zero(tensor); }
  std::byte* allocate_host(std::int64_t bytes) override { return host_.allocate_host(bytes); }
  void release_host(std::byte* data) override { host_.release_host(data); }
  void copy_from_host(const Tensor& to, std::span<const std::byte> from) override { upload(to, from); }
  void copy_to_host(std::span<std::byte> to, const Tensor& from) override { download(to, from); }
  Event record() override { return {}; }
  void synchronize() override {}

 private:
  CpuQueue host_{1};
};

}  // namespace verne::testing
