#include "verne/tensor/meta_trace.hpp"

#include <algorithm>

#include "verne/base/checked.hpp"

namespace verne {
namespace {
constexpr std::int64_t kAlignment = 256;
}  // namespace

Cost MetaTrace::total() const {
  Cost sum;
  for (const auto& [operation, tally] : operations_) sum += tally.cost;
  return sum;
}

std::span<const Tensor> MetaTrace::reads(const TraceEntry& entry) const {
  return std::span(tensors_).subspan(static_cast<std::size_t>(entry.first_tensor),
                                     static_cast<std::size_t>(entry.reads));
}

std::span<const Tensor> MetaTrace::writes(const TraceEntry& entry) const {
  return std::span(tensors_).subspan(static_cast<std::size_t>(entry.first_tensor + entry.reads),
                                     static_cast<std::size_t>(entry.writes));
}

std::int32_t MetaTrace::add_queue(std::string name) {
  queues_.push_back(std::move(name));
  return static_cast<std::int32_t>(queues_.size()) - 1;
}

TraceEntry& MetaTrace::add(TraceEntry::Kind kind, std::int32_t queue) {
  return entries_.emplace_back(
      TraceEntry{.kind = kind, .queue = queue, .first_tensor = std::ssize(tensors_)});
}

std::int32_t MetaTrace::add_tensors(std::span<const Tensor> tensors) {
  std::int32_t added = 0;
  for (const Tensor& tensor : tensors) {
    if (tensor.empty() || tensor.bytes() == 0) continue;
    tensors_.push_back(tensor);
    ++added;
  }
  return added;
}

void MetaTrace::add_operation(std::int32_t queue, std::string_view operation, const Cost& cost,
                              const Access& access) {
  auto found = operations_.find(operation);
  if (found == operations_.end()) found = operations_.emplace(std::string(operation), Tally{}).first;
  ++found->second.calls;
  found->second.cost += cost;
  if (recording_ == Recording::tallies) return;
  TraceEntry& entry = add(TraceEntry::Kind::operation, queue);
  entry.operation = found->first;
  entry.cost = cost;
  entry.reads = add_tensors(access.reads);
  entry.writes = add_tensors(access.writes);
}

std::int64_t MetaTrace::add_event(std::int32_t queue) {
  if (recording_ == Recording::everything) add(TraceEntry::Kind::event, queue);
  return std::ssize(entries_) - 1;
}

void MetaTrace::add_wait(TraceEntry::Kind kind, std::int32_t queue, std::int64_t event) {
  if (recording_ == Recording::everything) add(kind, queue).event = event;
}

void MetaTrace::add_memory(TraceEntry::Kind kind, std::int32_t queue, const Tensor& tensor) {
  if (recording_ == Recording::tallies) return;
  TraceEntry& entry = add(kind, queue);
  (kind == TraceEntry::Kind::host_read ? entry.reads : entry.writes) = add_tensors({&tensor, 1});
}

std::byte* MetaTrace::allocate(std::int32_t queue, std::int64_t bytes, MemoryKind kind) {
  memory_.add(kind, bytes);
  std::byte* data = reserve_addresses(bytes);
  add_memory(TraceEntry::Kind::allocated, queue, Tensor(data, DType::u8, {bytes}));
  return data;
}

void MetaTrace::release(std::int32_t queue, std::byte* data, std::int64_t bytes, MemoryKind kind) {
  memory_.remove(kind, bytes);
  add_memory(TraceEntry::Kind::given_back, queue, Tensor(data, DType::u8, {bytes}));
}

std::byte* MetaTrace::reserve_addresses(std::int64_t bytes) {
  const std::uintptr_t address = next_address_;
  next_address_ += static_cast<std::uintptr_t>(round_up(std::max<std::int64_t>(bytes, 1), kAlignment));
  return reinterpret_cast<std::byte*>(address);  // NOLINT: an address that is only ever compared
}

}  // namespace verne
