#include "verne/io/block_plan.hpp"

#include <algorithm>

#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"

namespace verne {
namespace {

/// What all ranks together give or want of a block.
struct Gathered {
  std::int64_t elements = 0;
  std::uint64_t positions = 0;
  bool whole = false;  ///< one rank has all of it
};

/// One entry for each block that `rank` is the home of, and where a block's entry stands.
template <class Entry>
std::vector<Entry> home_blocks(const BlockIndex& index, int rank, int ranks) {
  return std::vector<Entry>(
      static_cast<std::size_t>(std::max<std::int64_t>(0, (index.blocks() - rank + ranks - 1) / ranks)));
}
std::size_t home_position(std::int64_t block, int rank, int ranks) {
  require(home_of(block, ranks) == rank, "block {} came to rank {}, which is not its home", block, rank);
  return static_cast<std::size_t>(block / ranks);
}

/// A rank may read this many times its fair share of what it wants itself.
constexpr double kUneven = 1.1;

/// In [0, 1), as if at random.
double die(std::int64_t block) {
  const std::uint64_t hash = xxh3(std::as_bytes(std::span(&block, 1)));
  return static_cast<double>(hash >> 11) * 0x1p-53;
}

/// Segments of a block as few ranges.
std::vector<BlockRanges> ranges_of(std::span<const Segment> segments, std::int64_t block_begin) {
  std::vector<BlockRanges> ranges;
  for (const Segment& segment : segments) {
    const std::int64_t begin = segment.global - block_begin;
    if (!ranges.empty()) {
      BlockRanges& last = ranges.back();
      const std::int64_t gap = begin - (last.begin + (last.count - 1) * last.stride);
      if (last.length == segment.length && gap > 0 && (last.count == 1 || last.stride == gap)) {
        last.stride = gap;
        ++last.count;
        continue;
      }
    }
    ranges.push_back({begin, segment.length, 1, 0});
  }
  return ranges;
}

ReadPlan::Read& read_of(ReadPlan& plan, std::int64_t block) {
  const auto at = std::lower_bound(plan.reads.begin(), plan.reads.end(), block,
                                   [](const ReadPlan::Read& read, std::int64_t b) { return read.block < b; });
  if (at != plan.reads.end() && at->block == block) return *at;
  return *plan.reads.insert(at, {block, {}});
}

}  // namespace

ByRank<BlockShare> shares_by_home(std::span<const BlockShare> shares, int ranks) {
  ByRank<BlockShare> homes(static_cast<std::size_t>(ranks));
  for (const BlockShare& share : shares)
    homes[static_cast<std::size_t>(home_of(share.block, ranks))].push_back(share);
  return homes;
}

std::vector<std::int64_t> divided_blocks(const BlockIndex& index, int rank, int ranks,
                                         const ByRank<BlockShare>& received) {
  std::vector<Gathered> blocks = home_blocks<Gathered>(index, rank, ranks);
  for (const auto& shares : received) {
    for (const BlockShare& share : shares) {
      Gathered& block = blocks[home_position(share.block, rank, ranks)];
      block.elements += share.elements;
      block.positions += share.positions;
      block.whole = block.whole || share.elements == index.place(share.block).elements();
    }
  }
  std::vector<std::int64_t> divided;
  for (std::int64_t block = rank; block < index.blocks(); block += ranks) {
    const Gathered& given = blocks[home_position(block, rank, ranks)];
    const BlockIndex::Place place = index.place(block);
    const auto count = static_cast<std::uint64_t>(place.elements());
    require(given.elements == place.elements() && given.positions == count * (count - 1) / 2,
            "{}: of elements {} to {} the ranks give {}: each must be given by exactly one rank",
            index.tensors()[place.tensor].name, place.begin, place.end,
            given.elements == place.elements() ? "some twice and others not at all"
                                               : fmt::to_string(given.elements));
    if (!given.whole) divided.push_back(block);
  }
  return divided;
}

HomeReads::HomeReads(const BlockIndex& index, int rank, int ranks, ByRank<BlockShare> received)
    : rank_(rank), ranks_(ranks), received_(std::move(received)) {
  auto candidates = home_blocks<std::vector<int>>(index, rank, ranks);
  auto wanted = home_blocks<char>(index, rank, ranks);
  for (std::size_t from = 0; from < received_.size(); ++from) {
    for (const BlockShare& share : received_[from]) {
      const std::size_t position = home_position(share.block, rank, ranks);
      wanted[position] = 1;
      if (2 * share.elements >= index.place(share.block).elements())
        candidates[position].push_back(static_cast<int>(from));
    }
  }
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (!wanted[i]) continue;
    const std::int64_t number = rank + static_cast<std::int64_t>(i) * ranks;
    const BlockIndex::Place place = index.place(number);
    blocks_.push_back(
        {number, block_bytes(index.tensors()[place.tensor], place.block), std::move(candidates[i])});
  }
}

int HomeReads::candidate(const Block& block) const {
  if (block.candidates.empty()) return kFree;
  return block.candidates[static_cast<std::size_t>(block.number / ranks_ + rank_) % block.candidates.size()];
}

std::vector<std::int64_t> HomeReads::loads() const {
  std::vector<std::int64_t> loads(static_cast<std::size_t>(ranks_) + 1, 0);
  for (const Block& block : blocks_) {
    if (const int reader = candidate(block); reader != kFree)
      loads[static_cast<std::size_t>(reader)] += block.bytes;
    loads.back() += block.bytes;
  }
  return loads;
}

std::int64_t HomeReads::free_bytes(const std::vector<std::int64_t>& all_loads) {
  const double fair = static_cast<double>(all_loads.back()) / ranks_;
  std::int64_t free = 0;
  for (Block& block : blocks_) {
    block.reader = candidate(block);
    // Of the blocks of a rank with too many, so many stay, chosen as if at random, that it has enough.
    if (block.reader != kFree) {
      const double load = static_cast<double>(all_loads[static_cast<std::size_t>(block.reader)]);
      if (load > kUneven * fair && die(block.number) * load > fair) block.reader = kFree;
    }
    if (block.reader == kFree) free += block.bytes;
  }
  return free;
}

ByRank<BlockReader> HomeReads::readers(const std::vector<std::int64_t>& all_loads,
                                       const std::vector<std::int64_t>& all_free_bytes) const {
  // Free bytes lie on one line, home by home, and on another what each rank lacks of its fair share: a block
  // goes to the rank whose part of the line it falls into. Where nobody has a block of his own it stays.
  const double fair = static_cast<double>(all_loads.back()) / ranks_;
  std::vector<double> lacking_up_to;  // by rank, itself included
  double lacking = 0;
  for (int r = 0; r < ranks_; ++r) {
    lacking += std::max(0.0, fair - static_cast<double>(all_loads[static_cast<std::size_t>(r)]));
    lacking_up_to.push_back(lacking);
  }
  std::int64_t free = 0, before = 0;
  for (int home = 0; home < ranks_; ++home) {
    if (home == rank_) before = free;
    free += all_free_bytes[static_cast<std::size_t>(home)];
  }
  std::vector<std::pair<std::int64_t, int>> chosen;  // by block
  double at = static_cast<double>(before);
  for (const Block& block : blocks_) {
    int reader = block.reader;
    if (reader == kFree) {
      const double middle = (at + static_cast<double>(block.bytes) / 2) / static_cast<double>(free) * lacking;
      const auto found = std::upper_bound(lacking_up_to.begin(), lacking_up_to.end(), middle);
      reader = found == lacking_up_to.end() ? rank_ : static_cast<int>(found - lacking_up_to.begin());
      at += static_cast<double>(block.bytes);
    }
    chosen.emplace_back(block.number, reader);
  }
  ByRank<BlockReader> answers(received_.size());
  for (std::size_t from = 0; from < received_.size(); ++from) {
    for (const BlockShare& share : received_[from]) {
      const auto found = std::lower_bound(chosen.begin(), chosen.end(), std::pair(share.block, kFree));
      answers[from].push_back({share.block, found->second});
    }
  }
  return answers;
}

std::int64_t elements_of(const BlockRequest& request) {
  std::int64_t elements = 0;
  for (const BlockRanges& ranges : request.ranges) elements += ranges.length * ranges.count;
  return elements;
}

ByRank<std::int64_t> request_blocks(const PartBlocks& wanted, int rank, int ranks,
                                    const ByRank<BlockReader>& readers, ReadPlan& plan) {
  std::vector<BlockReader> all;
  for (const auto& answers : readers) all.insert(all.end(), answers.begin(), answers.end());
  std::sort(all.begin(), all.end(),
            [](const BlockReader& a, const BlockReader& b) { return a.block < b.block; });
  require(all.size() == wanted.shares().size(), "{} blocks are wanted and {} have readers",
          wanted.shares().size(), all.size());
  ByRank<std::int64_t> requests(static_cast<std::size_t>(ranks));
  for (const BlockReader& answer : all) {
    const auto reader = static_cast<int>(answer.reader);
    if (reader == rank) {
      read_of(plan, answer.block);
      continue;
    }
    plan.receives.push_back({answer.block, reader});
    const std::vector<BlockRanges> ranges =
        ranges_of(wanted.segments(answer.block), wanted.index().place(answer.block).begin);
    std::vector<std::int64_t>& message = requests[static_cast<std::size_t>(reader)];
    message.insert(message.end(), {answer.block, std::ssize(ranges)});
    for (const BlockRanges& r : ranges) message.insert(message.end(), {r.begin, r.length, r.count, r.stride});
  }
  return requests;
}

void accept_requests(const BlockIndex& index, const ByRank<std::int64_t>& requests, ReadPlan& plan) {
  for (std::size_t from = 0; from < requests.size(); ++from) {
    const std::vector<std::int64_t>& message = requests[from];
    for (std::size_t at = 0; at < message.size();) {
      const std::int64_t block = message[at++], count = message[at++],
                         elements = index.place(block).elements();
      BlockRequest request{static_cast<int>(from), {}};
      for (std::int64_t i = 0; i < count; ++i, at += 4) {
        const BlockRanges ranges{message[at], message[at + 1], message[at + 2], message[at + 3]};
        require(ranges.begin >= 0 &&
                    ranges.begin + (ranges.count - 1) * ranges.stride + ranges.length <= elements,
                "rank {} wants elements past the {} of a block of {}", from, elements,
                index.tensor_of(block).name);
        request.ranges.push_back(ranges);
      }
      read_of(plan, block).requests.push_back(std::move(request));
    }
  }
}

}  // namespace verne
