#include "verne/tensor/arena.hpp"

#include <algorithm>

#include "verne/base/checked.hpp"

namespace verne {
namespace {
constexpr std::int64_t kAlignment = 256;
// The span of addresses that an unbounded arena hands out; a meta queue gives them without memory behind
// them.
constexpr std::int64_t kMetaSpan = std::int64_t{1} << 42;
}  // namespace

Arena::Arena(Queue& queue, std::int64_t capacity_bytes, MemoryKind kind)
    : kind_(kind), capacity_(capacity_bytes) {
  if (capacity_ == kUnbounded) {
    require(queue.kind() == QueueKind::meta, "an unbounded arena needs a meta queue");
    buffer_ = Buffer(queue, 0, kind);
    return;
  }
  buffer_ = Buffer(queue, capacity_, kind);
}

Tensor Arena::allocate(DType dtype, Shape shape) {
  const std::int64_t bytes = round_up(bytes_of(dtype, shape.count()), kAlignment);
  const std::int64_t limit = capacity_ == kUnbounded ? kMetaSpan : capacity_;
  require(used_ + bytes <= limit, "{} arena of {} bytes is full: {} in use, {} more wanted for {} of {}",
          name(kind_), limit, used_, bytes, name(dtype), shape.text());
  std::byte* data = buffer_.data() + used_;
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  return Tensor(data, dtype, shape);
}

void Arena::rewind(std::int64_t mark) {
  require(mark >= 0 && mark <= used_, "arena rewound to {} of {} bytes in use", mark, used_);
  used_ = mark;
}

}  // namespace verne
