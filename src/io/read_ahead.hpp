#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "verne/io/blocks.hpp"

namespace verne {

/// Reads blocks in the order of a list, on threads of its own that are as far ahead as there is memory: while
/// one waits for the disk another may check what it got.
class ReadAhead {
 public:
  struct Item {
    BlockIndex::Place place;
    std::int64_t bytes;
    std::span<std::byte> to;  ///< where to read to; where empty, memory is lent
  };
  /// Both are called from the threads.
  struct Source {
    std::function<void(const BlockIndex::Place&, std::span<std::byte>)> read;
    std::function<void(const BlockIndex::Place&)> will_read;  ///< a hint, some blocks before
  };

  /// At most `lent` blocks are in lent memory.
  ReadAhead(Source source, std::vector<Item> items, std::size_t lent);
  /// What is being read is waited for, the rest is left.
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  /// Whether the next block is there, waiting up to `limit` for it.
  bool ready(std::chrono::microseconds limit);
  /// Waits for the next block. Lent memory of its bytes, whose content is undefined where reading failed;
  /// none where it was read to its place.
  std::unique_ptr<std::byte[]> take();
  void give_back(std::unique_ptr<std::byte[]> memory);
  /// The first failure; nothing is read after it.
  std::exception_ptr failure();

 private:
  void run();
  /// The next item to be read, with memory where it needs some; nothing where none is left. Memory is taken
  /// in the items' order: the one that is waited for is never without.
  struct Claim {
    std::size_t index;
    std::unique_ptr<std::byte[]> memory;
  };
  std::optional<Claim> claim();
  void read(const Claim& claim);
  bool next_is_there() const { return taken_ < ready_.size() && ready_[taken_].there; }

  Source source_;
  std::vector<Item> items_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<std::byte[]>> spare_;
  std::size_t claimed_ = 0, taken_ = 0;  ///< items
  struct Ready {
    bool there = false;
    std::unique_ptr<std::byte[]> memory;
  };
  std::vector<Ready> ready_;  ///< by item
  std::exception_ptr failure_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace verne
