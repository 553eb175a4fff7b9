// Plans of any number of ranks in one process.
#pragma once
#include <optional>
#include <vector>

#include "verne/io/block_plan.hpp"

namespace verne::testing {

/// What arrives at `rank` where sent[r] is what rank r sends.
template <class Item>
ByRank<Item> received_by(int rank, const std::vector<ByRank<Item>>& sent) {
  ByRank<Item> received;
  for (const ByRank<Item>& from : sent) received.push_back(from[static_cast<std::size_t>(rank)]);
  return received;
}

/// The plans of all ranks for what each wants. `each(work)` calls work(rank) for every rank.
template <class Each>
std::vector<ReadPlan> plan_reads(const std::vector<PartBlocks>& wanted, const Each& each) {
  const int ranks = static_cast<int>(wanted.size());
  const BlockIndex& index = wanted[0].index();
  const auto at = [](int rank) { return static_cast<std::size_t>(rank); };
  std::vector<ReadPlan> plans(wanted.size());
  std::vector<ByRank<BlockShare>> shares(wanted.size());
  std::vector<std::optional<HomeReads>> homes(wanted.size());
  std::vector<std::int64_t> loads(wanted.size() + 1), free_bytes(wanted.size());
  std::vector<ByRank<BlockReader>> readers(wanted.size());
  std::vector<ByRank<std::int64_t>> requests(wanted.size());
  each([&](int r) { shares[at(r)] = shares_by_home(wanted[at(r)].shares(), ranks); });
  each([&](int r) {
    homes[at(r)].emplace(index, r, ranks, received_by(r, shares));
    const std::vector<std::int64_t> own = homes[at(r)]->loads();
    for (std::size_t i = 0; i < loads.size(); ++i) loads[i] += own[i];
  });
  each([&](int r) { free_bytes[at(r)] = homes[at(r)]->free_bytes(loads); });
  each([&](int r) { readers[at(r)] = homes[at(r)]->readers(loads, free_bytes); });
  each([&](int r) {
    requests[at(r)] = request_blocks(wanted[at(r)], r, ranks, received_by(r, readers), plans[at(r)]);
  });
  each([&](int r) { accept_requests(index, received_by(r, requests), plans[at(r)]); });
  return plans;
}

inline std::vector<ReadPlan> plan_reads(const std::vector<PartBlocks>& wanted) {
  return plan_reads(wanted, [&](const auto& work) {
    for (int rank = 0; rank < static_cast<int>(wanted.size()); ++rank) work(rank);
  });
}

}  // namespace verne::testing
