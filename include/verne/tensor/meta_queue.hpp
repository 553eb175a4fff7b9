#pragma once
#include <string>

#include "verne/tensor/meta_trace.hpp"

namespace verne {

/// Runs nothing: tells its trace what it is given. Its addresses are distinct from those of all queues of the
/// trace, and must never be read. Host memory is real; what is downloaded is 0. An event has always passed,
/// and whoever asks has waited for it. `memory()` is this queue's part of the trace's.
class MetaQueue final : public Queue {
 public:
  /// `trace` must outlive the queue, its memory and its events. `name` is for reports: "compute", "data".
  MetaQueue(MetaTrace& trace, std::string name, Determinism determinism = Determinism::fast);

  MetaTrace& trace() const { return trace_; }
  /// `run` and communicators call this for what they would have launched.
  void record_operation(std::string_view operation, const Cost& cost, const Access& access);
  /// What an operation needs beside its arguments; the largest counts as scratch.
  void record_workspace(std::int64_t bytes);
  Determinism determinism() const { return determinism_; }

  std::byte* allocate(std::int64_t bytes, MemoryKind kind) override;
  void release(std::byte* data, std::int64_t bytes, MemoryKind kind) override;
  /// An arena says what becomes of its memory.
  void handed_out(const Tensor& tensor);
  void given_back(std::byte* data, std::int64_t bytes);

  using Queue::upload;
  void upload(const Tensor& to, std::span<const std::byte> from) override;
  void download(std::span<std::byte> to, const Tensor& from) override;
  void copy(const Tensor& to, const Tensor& from) override;
  void zero(const Tensor& tensor) override;
  std::byte* allocate_host(std::int64_t bytes) override;
  void release_host(std::byte* data) override;
  void copy_from_host(const Tensor& to, std::span<const std::byte> from) override;
  void copy_to_host(std::span<std::byte> to, const Tensor& from) override;
  void host_access(std::span<const std::byte> bytes, HostAccess access) override;
  Event record() override;
  void synchronize() override;

 private:
  class Recorded;
  MetaTrace& trace_;
  std::int32_t index_;  ///< among the trace's queues
  Determinism determinism_;
  std::int64_t workspace_ = 0;
};

}  // namespace verne
