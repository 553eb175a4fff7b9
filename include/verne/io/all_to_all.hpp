#pragma once
#include <cstring>
#include <type_traits>
#include <vector>

#include "verne/base/error.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/io/block_plan.hpp"

namespace verne {

/// Sends items[r] to rank r and returns what each rank sent here, by rank. Collective.
template <class Item>
ByRank<Item> all_to_all(const HostGroup& group, const ByRank<Item>& items) {
  static_assert(std::is_trivially_copyable_v<Item>);
  std::vector<std::vector<std::byte>> to(items.size());
  for (std::size_t rank = 0; rank < items.size(); ++rank) {
    const auto bytes = std::as_bytes(std::span(items[rank]));
    to[rank].assign(bytes.begin(), bytes.end());
  }
  const std::vector<std::vector<std::byte>> from = group.all_to_all(to);
  ByRank<Item> received(from.size());
  for (std::size_t rank = 0; rank < from.size(); ++rank) {
    require(from[rank].size() % sizeof(Item) == 0, "rank {} sent {} bytes of items of {}", rank,
            from[rank].size(), sizeof(Item));
    received[rank].resize(from[rank].size() / sizeof(Item));
    if (!from[rank].empty()) std::memcpy(received[rank].data(), from[rank].data(), from[rank].size());
  }
  return received;
}

}  // namespace verne
