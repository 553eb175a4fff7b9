#include "progress_board.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "verne/base/error.hpp"

namespace verne {
namespace {

/// Zeroed memory of `bytes`: the object `descriptor` shared, or private where it is -1. nullptr where it
/// cannot be had.
void* map(int descriptor, std::int64_t bytes) {
  const int flags = descriptor < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void* memory =
      ::mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE, flags, descriptor, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

/// A shared-memory object of `bytes` made by the node's first rank and mapped by all; the name is gone
/// afterwards. nullptr on all ranks where it fails on any.
void* map_shared(const HostGroup& node, std::int64_t bytes) {
  int descriptor = -1;
  std::string name;
  if (node.rank() == 0) {
    name = fmt::format("/verne.{}.{}", ::getpid(), static_cast<const void*>(&node));
    descriptor = ::shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    // Allocated, not only sized: a full file system must fail here and not at the first write.
    if (descriptor >= 0 && ::posix_fallocate(descriptor, 0, bytes) != 0) {
      ::close(descriptor);
      ::shm_unlink(name.c_str());
      descriptor = -1;
    }
    if (descriptor < 0) name.clear();
  }
  name = node.broadcast_text(name, 0);
  if (node.rank() != 0 && !name.empty()) descriptor = ::shm_open(name.c_str(), O_RDWR, 0600);
  void* memory = descriptor >= 0 ? map(descriptor, bytes) : nullptr;
  if (descriptor >= 0) ::close(descriptor);
  const bool everywhere = node.min(std::int64_t{memory ? 1 : 0}) == 1;
  if (node.rank() == 0 && !name.empty()) ::shm_unlink(name.c_str());
  if (everywhere) return memory;
  if (memory) ::munmap(memory, static_cast<std::size_t>(bytes));
  return nullptr;
}

}  // namespace

void ProgressSlot::tell_operation(std::string_view operation) {
  std::array<std::uint64_t, 5> words{};
  std::memcpy(words.data(), operation.data(), std::min(operation.size(), sizeof(words)));
  for (std::size_t i = 0; i < words.size(); ++i) text_[i].store(words[i], std::memory_order_relaxed);
}

std::string ProgressSlot::operation() const {
  std::array<std::uint64_t, 5> words{};
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = text_[i].load(std::memory_order_relaxed);
  const std::string_view text(reinterpret_cast<const char*>(words.data()), sizeof(words));
  return std::string(text.substr(0, text.find('\0')));
}

ProgressBoard::ProgressBoard(const HostGroup& node, int world_rank) {
  constexpr std::int64_t kRowBytes = kSlots * static_cast<std::int64_t>(sizeof(ProgressSlot));
  void* memory = node.size() > 1 ? map_shared(node, node.size() * kRowBytes) : nullptr;
  if (memory) {
    world_ranks_ = node.all_gather(std::int64_t{world_rank});
    own_row_ = static_cast<std::size_t>(node.rank());
  } else {
    world_ranks_ = {world_rank};
    memory = map(-1, kRowBytes);
    if (!memory) throw_errno("memory for the watchdog", errno);
  }
  // Fresh mappings are zero, which is the initial state of every slot.
  slots_ = {static_cast<ProgressSlot*>(memory), world_ranks_.size() * static_cast<std::size_t>(kSlots)};
}

ProgressBoard::~ProgressBoard() {
  ::munmap(slots_.data(), slots_.size_bytes());
}

std::span<ProgressSlot> ProgressBoard::own() {
  return slots_.subspan(own_row_ * static_cast<std::size_t>(kSlots), static_cast<std::size_t>(kSlots));
}

std::optional<ProgressBoard::Arrival> ProgressBoard::arrival(std::int64_t world_rank,
                                                             std::uint64_t key) const {
  for (std::size_t row = 0; row < world_ranks_.size(); ++row) {
    if (world_ranks_[row] != world_rank) continue;
    const auto slots =
        slots_.subspan(row * static_cast<std::size_t>(kSlots), static_cast<std::size_t>(kSlots));
    for (const ProgressSlot& slot : slots) {
      if (slot.key.load(std::memory_order_acquire) == key)
        return Arrival{slot.arrived.load(std::memory_order_acquire), slot.operation()};
    }
    return Arrival{};
  }
  return std::nullopt;
}

}  // namespace verne
