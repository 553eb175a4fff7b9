#include "read_ahead.hpp"

#include <algorithm>
#include <system_error>

namespace verne {
namespace {

constexpr std::size_t kThreads = 2;
/// Items that the source hears of before they are read.
constexpr std::size_t kHintsAhead = 3;

}  // namespace

ReadAhead::ReadAhead(Source source, std::vector<Item> items, std::size_t lent)
    : source_(std::move(source)), items_(std::move(items)), ready_(items_.size()) {
  const auto lending =
      std::count_if(items_.begin(), items_.end(), [](const Item& item) { return item.to.empty(); });
  for (std::size_t i = 0; i < std::min(lent, static_cast<std::size_t>(lending)); ++i)
    spare_.push_back(std::make_unique_for_overwrite<std::byte[]>(kBlockBytes));
  threads_.reserve(kThreads);
  for (std::size_t i = 0; i < std::min(kThreads, items_.size()); ++i) try {
      threads_.emplace_back([this] { run(); });
    } catch (const std::system_error&) {
      if (threads_.empty()) throw;  // one is enough
    }
}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::optional<ReadAhead::Claim> ReadAhead::claim() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    return stop_ || claimed_ == items_.size() || !items_[claimed_].to.empty() || !spare_.empty();
  });
  if (stop_ || claimed_ == items_.size()) return std::nullopt;
  Claim claim{claimed_++, nullptr};
  if (items_[claim.index].to.empty()) {
    claim.memory = std::move(spare_.back());
    spare_.pop_back();
  }
  return claim;
}

void ReadAhead::read(const Claim& claim) {
  // The first tells of all up to the one that it is ahead by.
  for (std::size_t ahead = claim.index == 0 ? 1 : kHintsAhead; ahead <= kHintsAhead; ++ahead)
    if (claim.index + ahead < items_.size()) source_.will_read(items_[claim.index + ahead].place);
  const Item& item = items_[claim.index];
  source_.read(item.place, item.to.empty()
                               ? std::span(claim.memory.get(), static_cast<std::size_t>(item.bytes))
                               : item.to);
}

void ReadAhead::run() {
  while (std::optional<Claim> item = claim()) {
    std::exception_ptr failed = failure();
    if (!failed) try {
        read(*item);
      } catch (...) {
        failed = std::current_exception();
      }
    {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = failed;
      ready_[item->index] = {true, std::move(item->memory)};
    }
    changed_.notify_all();
  }
}

bool ReadAhead::ready(std::chrono::microseconds limit) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, limit, [&] { return next_is_there(); });
}

std::unique_ptr<std::byte[]> ReadAhead::take() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return next_is_there(); });
  return std::move(ready_[taken_++].memory);
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
