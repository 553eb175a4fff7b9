#include "verne/tensor/queue.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace verne {

std::string_view name(MemoryKind kind) {
  constexpr std::array<std::string_view, kMemoryKinds> names = {
      "weights", "gradients", "optimizer", "activations", "scratch", "communication", "batch"};
  return names[static_cast<std::size_t>(kind)];
}

void MemoryUse::add(MemoryKind kind, std::int64_t bytes) {
  const auto i = static_cast<std::size_t>(kind);
  live[i] += bytes;
  peak[i] = std::max(peak[i], live[i]);
  peak_total = std::max(peak_total, live_total());
}

void MemoryUse::remove(MemoryKind kind, std::int64_t bytes) {
  live[static_cast<std::size_t>(kind)] -= bytes;
}

std::int64_t MemoryUse::live_total() const {
  return std::accumulate(live.begin(), live.end(), std::int64_t{0});
}

Buffer::Buffer(Queue& queue, std::int64_t bytes, MemoryKind kind)
    : Buffer(queue, DType::u8, Shape{bytes}, kind) {}

Buffer::Buffer(Queue& queue, DType dtype, Shape shape, MemoryKind kind)
    : queue_(&queue), bytes_(bytes_of(dtype, shape.count())), kind_(kind) {
  data_ = queue.allocate(bytes_, kind);
  tensor_ = Tensor(data_, dtype, shape);
}

Buffer::~Buffer() {
  if (data_) queue_->release(data_, bytes_, kind_);
}

Buffer::Buffer(Buffer&& other) noexcept
    : queue_(other.queue_),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(other.bytes_),
      kind_(other.kind_),
      tensor_(std::exchange(other.tensor_, {})) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(queue_, other.queue_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(kind_, other.kind_);
  std::swap(tensor_, other.tensor_);
  return *this;
}

Tensor Buffer::as(DType dtype, Shape shape) const {
  require(bytes_of(dtype, shape.count()) <= bytes_, "{} of {} in a buffer of {} bytes", name(dtype),
          shape.text(), bytes_);
  return Tensor(data_, dtype, shape);
}

HostBuffer::HostBuffer(Queue& queue, std::int64_t bytes)
    : queue_(&queue), bytes_(queue.allocate_host(bytes), static_cast<std::size_t>(bytes)) {}

HostBuffer::~HostBuffer() {
  if (queue_) queue_->release_host(bytes_.data());
}

HostBuffer::HostBuffer(HostBuffer&& other) noexcept
    : queue_(std::exchange(other.queue_, nullptr)), bytes_(std::exchange(other.bytes_, {})) {}

HostBuffer& HostBuffer::operator=(HostBuffer&& other) noexcept {
  std::swap(queue_, other.queue_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace verne
