#include "read_ahead.hpp"

#include <algorithm>

namespace verne {

ReadAhead::ReadAhead(Source source, std::vector<Item> items, std::size_t lent)
    : source_(std::move(source)), items_(std::move(items)) {
  const auto lending =
      std::count_if(items_.begin(), items_.end(), [](const Item& item) { return item.to.empty(); });
  for (std::size_t i = 0; i < std::min(lent, static_cast<std::size_t>(lending)); ++i)
    spare_.push_back(std::make_unique_for_overwrite<std::byte[]>(kBlockBytes));
  if (!items_.empty()) thread_ = std::thread([this] { run(); });
}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void ReadAhead::run() {
  constexpr std::size_t kHintsAhead = 2;
  for (std::size_t i = 0; i < std::min(kHintsAhead, items_.size()); ++i) source_.will_read(items_[i].place);
  for (std::size_t i = 0; i < items_.size(); ++i) {
    const Item& item = items_[i];
    std::unique_lock lock(mutex_);
    std::unique_ptr<std::byte[]> memory;
    if (item.to.empty()) {
      changed_.wait(lock, [&] { return stop_ || !spare_.empty(); });
      if (stop_) return;
      memory = std::move(spare_.back());
      spare_.pop_back();
    }
    if (stop_) return;
    const bool wanted = !failure_;
    lock.unlock();
    std::exception_ptr failure;
    try {
      if (wanted) {
        if (i + kHintsAhead < items_.size()) source_.will_read(items_[i + kHintsAhead].place);
        source_.read(item.place, item.to.empty()
                                     ? std::span(memory.get(), static_cast<std::size_t>(item.bytes))
                                     : item.to);
      }
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    if (failure && !failure_) failure_ = failure;
    ready_.push_back(std::move(memory));
    changed_.notify_all();
  }
}

bool ReadAhead::ready(std::chrono::microseconds limit) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, limit, [&] { return !ready_.empty(); });
}

std::unique_ptr<std::byte[]> ReadAhead::take() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !ready_.empty(); });
  std::unique_ptr<std::byte[]> memory = std::move(ready_.front());
  ready_.pop_front();
  return memory;
}

void ReadAhead::give_back(std::unique_ptr<std::byte[]> memory) {
  if (!memory) return;
  {
    const std::lock_guard lock(mutex_);
    spare_.push_back(std::move(memory));
  }
  changed_.notify_all();
}

std::exception_ptr ReadAhead::failure() {
  const std::lock_guard lock(mutex_);
  return failure_;
}

}  // namespace verne
