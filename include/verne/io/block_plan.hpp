#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "verne/io/part_blocks.hpp"

namespace verne {

// Who writes, checks, reads and sends which block, among any number of ranks. Pure functions of one rank's
// view: what it holds and what others told it. Messages stand in lists by rank; on no rank is there more than
// its own parts, its share of the blocks and who touches them.

template <class Item>
using ByRank = std::vector<std::vector<Item>>;

/// What a rank tells the homes of the blocks that its parts touch.
ByRank<BlockShare> shares_by_home(std::span<const BlockShare> shares, int ranks);

// --- Writing: every element is given by exactly one rank ---

/// At a home, which got `received`: its blocks that several ranks give, ascending; the others are given by
/// one rank alone, which knows that too. InternalError naming the tensor where elements of a block are given
/// twice or not at all.
std::vector<std::int64_t> divided_blocks(const BlockIndex& index, int rank, int ranks,
                                         const ByRank<BlockShare>& received);

// --- Reading: any number of ranks want an element; each block is read by one ---

struct BlockReader {
  std::int64_t block;
  std::int64_t reader;
};

/// A home chooses who reads its blocks that anybody wants: a rank that wants half of a block or more (where
/// there are two, now one, now the other), unless it would read much more than the others; what is left is
/// shared out so that all ranks read alike.
class HomeReads {
 public:
  HomeReads(const BlockIndex& index, int rank, int ranks, ByRank<BlockShare> received);

  /// Bytes of this home's blocks by the rank that wants half or more of them, and behind these all bytes. To
  /// be added up over the homes.
  std::vector<std::int64_t> loads() const;
  /// Knowing the sum: bytes of this home's blocks that are to be shared out. To be gathered from all homes.
  std::int64_t free_bytes(const std::vector<std::int64_t>& all_loads);
  /// Knowing those too, by home: the readers, told to all who want the block.
  ByRank<BlockReader> readers(const std::vector<std::int64_t>& all_loads,
                              const std::vector<std::int64_t>& all_free_bytes) const;

 private:
  struct Block {
    std::int64_t number, bytes;
    std::vector<int> candidates;  ///< ranks that want half of it or more
    int reader = kFree;
  };
  static constexpr int kFree = -1;
  int candidate(const Block& block) const;

  int rank_, ranks_;
  ByRank<BlockShare> received_;
  std::vector<Block> blocks_;  ///< those that are wanted, ascending
};

/// Equally spaced ranges of elements, counted from the block's first.
struct BlockRanges {
  std::int64_t begin, length, count, stride;
};
/// Which elements a rank wants, in the order in which it wants them.
struct BlockRequest {
  int rank;
  std::vector<BlockRanges> ranges;
};
std::int64_t elements_of(const BlockRequest& request);

/// What a rank does so that everybody gets what he wants: both lists ascending by block.
struct ReadPlan {
  struct Read {
    std::int64_t block;
    std::vector<BlockRequest> requests;  ///< of other ranks
  };
  struct Receive {
    std::int64_t block;
    int reader;
  };
  std::vector<Read> reads;
  std::vector<Receive> receives;
};

/// Adds to the plan what this rank reads for itself and what it receives, and tells the readers what it
/// wants. `readers` came from the homes.
ByRank<std::int64_t> request_blocks(const PartBlocks& wanted, int rank, int ranks,
                                    const ByRank<BlockReader>& readers, ReadPlan& plan);
/// Adds what others want of this rank.
void accept_requests(const BlockIndex& index, const ByRank<std::int64_t>& requests, ReadPlan& plan);

}  // namespace verne
