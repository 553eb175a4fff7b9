#pragma once
#include "verne/tensor/queue.hpp"

namespace verne {

class MetaQueue;

/// A bump allocator over one buffer of a queue. Tensors are 256-byte aligned, live until the arena is rewound
/// past them and have undefined content. What another queue may still use must not be rewound before the
/// arena's queue has waited for that. A capacity of kUnbounded is for meta queues, where a planning pass
/// finds the peak. A meta queue is told what is handed out and given back.
class Arena {
 public:
  static constexpr std::int64_t kUnbounded = -1;

  Arena(Queue& queue, std::int64_t capacity_bytes, MemoryKind kind);

  Tensor allocate(DType dtype, Shape shape);

  std::int64_t used() const { return used_; }
  std::int64_t peak() const { return peak_; }
  std::int64_t capacity() const { return capacity_; }
  /// Gives back all that was allocated since `used()` was `mark`.
  void rewind(std::int64_t mark);
  void reset() { rewind(0); }

 private:
  MemoryKind kind_;
  std::int64_t capacity_;
  MetaQueue* meta_ = nullptr;  ///< the queue, where it is one
  Buffer buffer_;
  std::byte* begin_ = nullptr;
  std::int64_t used_ = 0;
  std::int64_t peak_ = 0;
};

/// Gives an arena's memory back at the end of a scope.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.used()) {}
  ~ArenaScope() { arena_.rewind(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  std::int64_t mark_;
};

}  // namespace verne
