#include "verne/tensor/meta_queue.hpp"

#include <algorithm>

#include "verne/base/checked.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne {

void MetaQueue::record_operation(std::string_view operation, const Cost& cost) {
  auto found = operations_.find(operation);
  if (found == operations_.end()) found = operations_.emplace(std::string(operation), Tally{}).first;
  ++found->second.calls;
  found->second.cost += cost;
}

Cost MetaQueue::total() const {
  Cost sum;
  for (const auto& [operation, tally] : operations_) sum += tally.cost;
  return sum;
}

std::byte* MetaQueue::allocate(std::int64_t bytes, MemoryKind kind) {
  memory_.add(kind, bytes);
  const std::uintptr_t address = next_address_;
  next_address_ += static_cast<std::uintptr_t>(round_up<std::int64_t>(std::max<std::int64_t>(bytes, 1), 256));
  return reinterpret_cast<std::byte*>(address);  // NOLINT: an address that is only ever compared
}

void MetaQueue::release(std::byte*, std::int64_t bytes, MemoryKind kind) {
  memory_.remove(kind, bytes);
}

std::byte* MetaQueue::allocate_host(std::int64_t bytes) {
  return allocate_aligned(bytes, "copies");
}
void MetaQueue::release_host(std::byte* data) {
  release_aligned(data);
}

void MetaQueue::download(std::span<std::byte> to, const Tensor&) {
  std::fill(to.begin(), to.end(), std::byte{0});
}

void MetaQueue::copy(const Tensor& to, const Tensor&) {
  record_operation("Copy", {.bytes = 2.0 * static_cast<double>(to.bytes())});
}
void MetaQueue::zero(const Tensor& tensor) {
  record_operation("Zero", {.bytes = static_cast<double>(tensor.bytes())});
}

}  // namespace verne
