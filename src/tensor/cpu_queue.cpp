#include "verne/tensor/cpu_queue.hpp"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "verne/base/checked.hpp"

namespace verne {

std::byte* allocate_aligned(std::int64_t bytes, std::string_view purpose) {
  auto* data = static_cast<std::byte*>(::operator new (
      static_cast<std::size_t>(std::max<std::int64_t>(bytes, 1)), std::align_val_t{256}, std::nothrow));
  if (!data) throw_system_error("out of memory: {} bytes for {}", bytes, purpose);
  return data;
}
void release_aligned(std::byte* data) {
  ::operator delete (data, std::align_val_t{256});
}

/// Helpers that wait for a job, take blocks of it by an index, and report when none is left.
class CpuQueue::Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; ++i) helpers_.emplace_back([this] { serve(); });
  }
  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    start_.notify_all();
    for (std::thread& helper : helpers_) helper.join();
  }
  int threads() const { return static_cast<int>(helpers_.size()) + 1; }

  void run(std::int64_t blocks, const std::function<void(std::int64_t)>& block) {
    std::unique_lock lock(mutex_);
    job_ = &block;
    next_ = 0;
    blocks_ = blocks;
    pending_ = blocks;
    error_ = nullptr;
    start_.notify_all();
    work(lock);
    done_.wait(lock, [this] { return pending_ == 0; });
    job_ = nullptr;
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void serve() {
    std::unique_lock lock(mutex_);
    while (true) {
      start_.wait(lock, [this] { return stop_ || (job_ && next_ < blocks_); });
      if (stop_) return;
      work(lock);
    }
  }
  void work(std::unique_lock<std::mutex>& lock) {
    while (job_ && next_ < blocks_) {
      const std::int64_t index = next_++;
      const auto* job = job_;
      lock.unlock();
      std::exception_ptr error;
      try {
        (*job)(index);
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      if (error && !error_) error_ = error;
      if (--pending_ == 0) done_.notify_all();
    }
  }

  std::vector<std::thread> helpers_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  const std::function<void(std::int64_t)>* job_ = nullptr;
  std::int64_t next_ = 0, blocks_ = 0, pending_ = 0;
  std::exception_ptr error_;
  bool stop_ = false;
};

CpuQueue::CpuQueue(int threads)
    : Queue(QueueKind::cpu), pool_(std::make_unique<Pool>(std::max(threads, 1))) {}
CpuQueue::~CpuQueue() = default;

int CpuQueue::threads() const {
  return pool_->threads();
}

void CpuQueue::parallel_for(std::int64_t count, std::int64_t grain,
                            const std::function<void(std::int64_t, std::int64_t)>& body) {
  if (count <= 0) return;
  const std::int64_t most = std::max<std::int64_t>(1, count / std::max<std::int64_t>(grain, 1));
  const std::int64_t blocks = std::min<std::int64_t>(most, 4 * threads());
  if (blocks == 1 || threads() == 1) return body(0, count);
  const std::int64_t size = divide_round_up(count, blocks);
  pool_->run(divide_round_up(count, size),
             [&](std::int64_t i) { body(i * size, std::min(count, (i + 1) * size)); });
}

std::byte* CpuQueue::allocate(std::int64_t bytes, MemoryKind kind) {
  std::byte* data = allocate_aligned(bytes, name(kind));
  memory_.add(kind, bytes);
  return data;
}

void CpuQueue::release(std::byte* data, std::int64_t bytes, MemoryKind kind) {
  release_aligned(data);
  memory_.remove(kind, bytes);
}

std::byte* CpuQueue::allocate_host(std::int64_t bytes) {
  return allocate_aligned(bytes, "copies");
}
void CpuQueue::release_host(std::byte* data) {
  release_aligned(data);
}

void CpuQueue::upload(const Tensor& to, std::span<const std::byte> from) {
  require(to.contiguous() && to.bytes() == std::ssize(from), "upload of {} bytes into {}", from.size(),
          to.bytes());
  std::memcpy(to.raw(), from.data(), from.size());
}
void CpuQueue::download(std::span<std::byte> to, const Tensor& from) {
  require(from.contiguous() && from.bytes() == std::ssize(to), "download of {} bytes into {}", from.bytes(),
          to.size());
  std::memcpy(to.data(), from.raw(), to.size());
}
void CpuQueue::copy(const Tensor& to, const Tensor& from) {
  require(to.contiguous() && from.contiguous() && to.bytes() == from.bytes(), "copy of {} bytes into {}",
          from.bytes(), to.bytes());
  std::memmove(to.raw(), from.raw(), static_cast<std::size_t>(to.bytes()));
}
void CpuQueue::zero(const Tensor& tensor) {
  require(tensor.contiguous(), "zero of a strided tensor {}", tensor.shape().text());
  std::memset(tensor.raw(), 0, static_cast<std::size_t>(tensor.bytes()));
}

}  // namespace verne
