#pragma once
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {

/// Looks like a GPU to code that knows the queue's interface alone, and is as late as one may be: nothing
/// that was enqueued runs before somebody waits for it. Host memory that was released is kept, overwritten,
/// until the queue goes, so that a copy which comes too late finds nothing.
class DeviceLikeQueue : public Queue {
 public:
  DeviceLikeQueue() : Queue(QueueKind::cuda) {}
  ~DeviceLikeQueue() override {
    run_until(enqueued_);
    for (const HostBlock& block : released_) host_.release_host(block.data);
  }

  std::byte* allocate(std::int64_t bytes, MemoryKind kind) override { return host_.allocate(bytes, kind); }
  void release(std::byte* data, std::int64_t bytes, MemoryKind kind) override {
    run_until(enqueued_);
    host_.release(data, bytes, kind);
  }
  using Queue::upload;
  void upload(const Tensor& to, std::span<const std::byte> from) override {
    ++copies;
    enqueue([to, bytes = std::vector<std::byte>(from.begin(), from.end())] {
      std::memcpy(to.raw(), bytes.data(), bytes.size());
    });
  }
  void download(std::span<std::byte> to, const Tensor& from) override {
    ++copies;
    synchronize();
    std::memcpy(to.data(), from.raw(), to.size());
  }
  void copy(const Tensor& to, const Tensor& from) override {
    enqueue([this, to, from] { host_.copy(to, from); });
  }
  void zero(const Tensor& tensor) override {
    enqueue([this, tensor] { host_.zero(tensor); });
  }
  std::byte* allocate_host(std::int64_t bytes) override {
    std::byte* data = host_.allocate_host(bytes);
    std::memset(data, kPoison, static_cast<std::size_t>(bytes));
    host_blocks_.push_back({data, bytes});
    return data;
  }
  void release_host(std::byte* data) override {
    for (HostBlock& block : host_blocks_) {
      if (block.data != data) continue;
      std::memset(data, kPoison, static_cast<std::size_t>(block.bytes));
      released_.push_back(std::exchange(block, {}));
    }
  }
  void copy_from_host(const Tensor& to, std::span<const std::byte> from) override {
    ++copies;
    enqueue([to, from] { std::memcpy(to.raw(), from.data(), from.size()); });
  }
  void copy_to_host(std::span<std::byte> to, const Tensor& from) override {
    ++copies;
    enqueue([to, from] { std::memcpy(to.data(), from.raw(), to.size()); });
  }
  Event record() override { return Event(std::make_unique<Position>(*this, enqueued_)); }
  void synchronize() override { run_until(enqueued_); }

  std::int64_t copies = 0;  ///< between host and device, so far
  /// Host memory that it ever gave.
  std::int64_t host_allocations() const { return std::ssize(host_blocks_); }
  /// What was enqueued and did not run.
  std::int64_t waiting() const { return enqueued_ - done_; }

 private:
  static constexpr int kPoison = 0x5a;
  struct HostBlock {
    std::byte* data = nullptr;
    std::int64_t bytes = 0;
  };

  struct Position final : Event::State {
    Position(DeviceLikeQueue& of, std::int64_t at) : queue(of), position(at) {}
    void hold(Queue& consumer) override {
      if (&consumer == &queue) return;
      static_cast<DeviceLikeQueue&>(consumer).enqueue(
          [this_queue = &queue, at = position] { this_queue->run_until(at); });
    }
    void wait_on_host() override { queue.run_until(position); }
    bool passed() override {
      const std::lock_guard lock(queue.mutex_);
      return queue.done_ >= position;
    }
    DeviceLikeQueue& queue;
    std::int64_t position;
  };

  void enqueue(std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    work_.push_back(std::move(work));
    ++enqueued_;
  }
  void run_until(std::int64_t position) {
    const std::lock_guard lock(mutex_);
    while (done_ < position) work_[static_cast<std::size_t>(done_++)]();
  }

  CpuQueue host_{1};
  std::recursive_mutex mutex_;  // a thread may wait for what another enqueues; work may wait for earlier work
  std::vector<std::function<void()>> work_;
  std::int64_t enqueued_ = 0, done_ = 0;
  std::vector<HostBlock> host_blocks_, released_;
};

}  // namespace verne::testing
