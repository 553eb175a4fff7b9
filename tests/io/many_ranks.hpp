// Plans of any number of ranks in one process.
#pragma once
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

/// The plans of all ranks for what each wants.
inline std::vector<ReadPlan> plan_reads(const std::vector<PartBlocks>& wanted) {
  const int ranks = static_cast<int>(wanted.size());
  std::vector<ReadPlan> plans(wanted.size());
  std::vector<ByRank<BlockShare>> shares;
  std::vector<ByRank<BlockReader>> readers;
  std::vector<ByRank<std::int64_t>> requests;
  for (const PartBlocks& parts : wanted) shares.push_back(shares_by_home(parts.shares(), ranks));
  for (int r = 0; r < ranks; ++r)
    readers.push_back(choose_readers(wanted[0].index(), r, ranks, received_by(r, shares)));
  for (int r = 0; r < ranks; ++r) {
    const auto i = static_cast<std::size_t>(r);
    requests.push_back(request_blocks(wanted[i], r, ranks, received_by(r, readers), plans[i]));
  }
  for (int r = 0; r < ranks; ++r)
    accept_requests(wanted[0].index(), received_by(r, requests), plans[static_cast<std::size_t>(r)]);
  return plans;
}

}  // namespace verne::testing
