#pragma once
#include <map>
#include <string>

#include "verne/tensor/queue.hpp"

namespace verne {

/// What an operation costs: floating-point operations, and bytes of device memory read and written once each.
struct Cost {
  double flops = 0;
  double bytes = 0;
  Cost& operator+=(const Cost& other) {
    flops += other.flops;
    bytes += other.bytes;
    return *this;
  }
};

/// Runs nothing: counts operations and memory. Its addresses are distinct and must never be read.
class MetaQueue final : public Queue {
 public:
  MetaQueue() : Queue(QueueKind::meta) {}

  struct Tally {
    std::int64_t calls = 0;
    Cost cost;
  };
  void record_operation(std::string_view operation, const Cost& cost);
  const std::map<std::string, Tally, std::less<>>& operations() const { return operations_; }
  Cost total() const;

  std::byte* allocate(std::int64_t bytes, MemoryKind kind) override;
  void release(std::byte* data, std::int64_t bytes, MemoryKind kind) override;
  using Queue::upload;
  void upload(const Tensor&, std::span<const std::byte>) override {}
  void download(std::span<std::byte> to, const Tensor& from) override;
  void copy(const Tensor& to, const Tensor& from) override;
  void zero(const Tensor& tensor) override;
  std::byte* allocate_host(std::int64_t bytes) override;
  void release_host(std::byte* data) override;
  void copy_from_host(const Tensor&, std::span<const std::byte>) override {}
  void copy_to_host(std::span<std::byte>, const Tensor&) override {}
  Event record() override { return {}; }
  void synchronize() override {}

 private:
  std::map<std::string, Tally, std::less<>> operations_;
  std::uintptr_t next_address_ = std::uintptr_t{1} << 48;  ///< above every real address
};

}  // namespace verne
