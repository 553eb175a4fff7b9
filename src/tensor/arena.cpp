#include "verne/tensor/arena.hpp"

#include <algorithm>

#include "verne/base/checked.hpp"
#include "verne/tensor/meta_queue.hpp"

namespace verne {
namespace {
constexpr std::int64_t kAlignment = 256;
// The span of addresses that an unbounded arena hands out, with no memory behind them.
constexpr std::int64_t kMetaSpan = std::int64_t{1} << 42;
}  // namespace

Arena::Arena(Queue& queue, std::int64_t capacity_bytes, MemoryKind kind)
    : kind_(kind), capacity_(capacity_bytes) {
  if (queue.kind() == QueueKind::meta) meta_ = &static_cast<MetaQueue&>(queue);
  if (capacity_ == kUnbounded) {
    require(meta_ != nullptr, "an unbounded arena needs a meta queue");
    begin_ = meta_->trace().reserve_addresses(kMetaSpan);
  } else {
    buffer_ = Buffer(queue, capacity_, kind);
    begin_ = buffer_.data();
  }
}

Tensor Arena::allocate(DType dtype, Shape shape) {
  const std::int64_t bytes = round_up(bytes_of(dtype, shape.count()), kAlignment);
  const std::int64_t limit = capacity_ == kUnbounded ? kMetaSpan : capacity_;
  require(used_ + bytes <= limit, "{} arena of {} bytes is full: {} in use, {} more wanted for {} of {}",
          name(kind_), limit, used_, bytes, name(dtype), shape.text());
  const Tensor tensor(begin_ + used_, dtype, shape);
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  if (meta_) meta_->handed_out(tensor);
  return tensor;
}

void Arena::rewind(std::int64_t mark) {
  require(mark >= 0 && mark <= used_, "arena rewound to {} of {} bytes in use", mark, used_);
  if (meta_ && mark < used_) meta_->given_back(begin_ + mark, used_ - mark);
  used_ = mark;
}

}  // namespace verne
