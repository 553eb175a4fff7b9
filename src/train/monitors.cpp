#include "verne/train/monitors.hpp"

#include "verne/base/log.hpp"

namespace verne {
namespace {
constexpr std::size_t kMostRows = 1024;
}

Monitors::Monitors(const std::filesystem::path& metrics, const std::filesystem::path& directory,
                   std::int64_t last_step, std::int64_t steps)
    : csv_(metrics, last_step),
      events_(directory, last_step < 0 ? 0 : last_step + 1),
      display_(std::max<std::int64_t>(last_step, 0) + 1, steps),
      thread_([this] { serve(); }) {}

Monitors::~Monitors() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Monitors::rethrow() {
  if (failure_) std::rethrow_exception(failure_);
}

void Monitors::write(const MetricsRow& row) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return failure_ || rows_.size() < kMostRows; });
  rethrow();
  rows_.push_back(row);
  changed_.notify_all();
}

void Monitors::sync() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return failure_ || rows_.empty(); });
  rethrow();
  csv_.sync();
}

void Monitors::serve() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stop_ || !rows_.empty(); });
    if (rows_.empty()) return;
    const MetricsRow row = rows_.front();
    lock.unlock();
    std::exception_ptr failure;
    try {
      write_now(row);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    if (failure) {
      failure_ = failure;
      rows_.clear();
      changed_.notify_all();
      return;
    }
    rows_.pop_front();
    changed_.notify_all();
  }
}

void Monitors::write_now(const MetricsRow& row) {
  csv_.write(row);
  const auto scalar = [&](const char* name, const std::optional<double>& value) {
    if (value) events_.scalar(row.step, name, *value);
  };
  scalar("loss", row.loss);
  scalar("grad_norm", row.grad_norm);
  scalar("lr", row.lr);
  scalar("tokens_per_s", row.tokens_per_s);
  scalar("val_loss", row.val_loss);
  log_info("{}", display_.line(row));
}

}  // namespace verne
