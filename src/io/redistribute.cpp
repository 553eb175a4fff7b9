#include "verne/io/redistribute.hpp"

#include <algorithm>
#include <exception>

#include "block_exchange.hpp"
#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"
#include "verne/comm/agree.hpp"

namespace verne {
namespace {

/// What a rank sends and receives at once, all ranks together.
constexpr std::int64_t kFlightBytes = std::int64_t{64} << 20;
constexpr std::int64_t kMinSliceBytes = std::int64_t{256} << 10;

struct Block {
  const HeldTensor* tensor;
  std::int64_t index;  ///< within the tensor
};

/// One round: each rank owns at most one block. Blocks travel in slices, so that what is in flight stays
/// bounded however many ranks want a piece of each.
class Round {
 public:
  Round(const HostGroup& group, const std::vector<Block>& blocks, std::size_t first)
      : blocks_(std::span(blocks).subspan(
            first, std::min(blocks.size() - first, static_cast<std::size_t>(group.size())))),
        slice_bytes_(std::clamp(kFlightBytes / group.size() / 4096 * 4096, kMinSliceBytes, kBlockBytes)) {}

  std::size_t size() const { return blocks_.size(); }
  const Block& block(std::size_t owner) const { return blocks_[owner]; }
  std::int64_t slices() const {
    std::int64_t most = 0;
    for (const Block& block : blocks_)
      most = std::max(most, divide_round_up(block_bytes(block.tensor->info, block.index), slice_bytes_));
    return most;
  }

  /// The elements of a slice of an owner's block.
  struct Range {
    std::int64_t begin, end;
    std::int64_t block_begin;
  };
  Range range(std::size_t owner, std::int64_t slice) const {
    const Block& block = blocks_[owner];
    const std::int64_t element_bits = bits(block.tensor->info.dtype);
    const std::int64_t in_block = block_bytes(block.tensor->info, block.index);
    const std::int64_t from = std::min(slice * slice_bytes_, in_block),
                       to = std::min(from + slice_bytes_, in_block);
    const std::int64_t start = block.index * kBlockBytes;
    return {(start + from) * 8 / element_bits, (start + to) * 8 / element_bits, start * 8 / element_bits};
  }

 private:
  std::span<const Block> blocks_;
  std::int64_t slice_bytes_;
};

std::vector<Block> list_blocks(const std::vector<HeldTensor>& tensors) {
  std::vector<Block> blocks;
  for (const HeldTensor& tensor : tensors)
    for (std::int64_t block = 0; block < block_count(tensor.info); ++block)
      blocks.push_back({&tensor, block});
  return blocks;
}

bool holds(const HeldTensor& tensor, int rank) {
  return std::any_of(tensor.holders.begin(), tensor.holders.end(),
                     [&](const Holder& h) { return h.rank == rank; });
}

/// Runs `work` and keeps its exception for the agreement at the end of the round: the exchange must go on
/// meanwhile.
template <class Work>
void keep_failure(std::exception_ptr& failure, const Work& work) {
  if (failure) return;
  try {
    work();
  } catch (...) {
    failure = std::current_exception();
  }
}

std::size_t size_of(DType type, std::int64_t count) {
  return static_cast<std::size_t>(bytes_of(type, count));
}

std::int64_t length_of(std::span<const Segment> segments) {
  std::int64_t length = 0;
  for (const Segment& segment : segments) length += segment.length;
  return length;
}

/// Makes room for `bytes` more at the end and returns it.
std::span<std::byte> extend(std::vector<std::byte>& buffer, std::size_t bytes) {
  const std::size_t before = buffer.size();
  buffer.resize(before + bytes);
  return std::span(buffer).subspan(before);
}

/// Collects one slice of every block of a round at the blocks' owners.
void gather_slice(const HostGroup& group, PartMemory& memory, std::span<const TensorPart> parts,
                  const Round& round, std::int64_t slice, std::span<std::byte> mine,
                  std::exception_ptr& failure) {
  const auto rank = static_cast<std::size_t>(group.rank());
  std::vector<std::vector<std::byte>> to(static_cast<std::size_t>(group.size()));
  std::vector<Provision> expected;
  for (std::size_t owner = 0; owner < round.size(); ++owner) {
    const HeldTensor& tensor = *round.block(owner).tensor;
    if (owner != rank && !holds(tensor, group.rank())) continue;
    const Round::Range range = round.range(owner, slice);
    std::int64_t covered = 0;
    std::vector<Provision> provisions =
        choose_providers(tensor, range.begin, range.end, static_cast<int>(owner), group.size(), covered);
    for (const Provision& provision : provisions) {
      if (provision.holder->rank != group.rank()) continue;
      const std::span<std::byte> piece =
          extend(to[owner], size_of(tensor.info.dtype, length_of(provision.segments)));
      keep_failure(failure, [&] {
        const TensorPart& part = parts[static_cast<std::size_t>(provision.holder->part)];
        memory.gather(part.local, provision.segments, tensor.info.dtype, piece);
      });
    }
    if (owner != rank) continue;
    keep_failure(failure, [&] {
      require(covered == range.end - range.begin, "{}: of elements {} to {} no rank holds {}",
              tensor.info.name, range.begin, range.end, range.end - range.begin - covered);
    });
    expected = std::move(provisions);
  }
  const std::vector<std::vector<std::byte>> from = group.all_to_all(to);
  if (rank >= round.size()) return;
  const DType dtype = round.block(rank).tensor->info.dtype;
  const std::int64_t block_begin = round.range(rank, slice).block_begin;
  std::vector<std::size_t> cursor(from.size(), 0);
  for (const Provision& provision : expected) {
    const auto source = static_cast<std::size_t>(provision.holder->rank);
    for (const Segment& segment : provision.segments) {
      const std::size_t bytes = size_of(dtype, segment.length);
      require(cursor[source] + bytes <= from[source].size(), "rank {} sent {} bytes of a slice", source,
              from[source].size());
      std::copy_n(from[source].data() + cursor[source], bytes,
                  mine.data() + size_of(dtype, segment.global - block_begin));
      cursor[source] += bytes;
    }
  }
}

/// Hands one slice of every block of a round to all who hold something of it.
void scatter_slice(const HostGroup& group, PartMemory& memory, std::span<const TensorPart> parts,
                   const Round& round, std::int64_t slice, std::span<const std::byte> mine,
                   std::exception_ptr& failure) {
  const auto rank = static_cast<std::size_t>(group.rank());
  std::vector<std::vector<std::byte>> to(static_cast<std::size_t>(group.size()));
  if (rank < round.size()) {
    const HeldTensor& tensor = *round.block(rank).tensor;
    const DType dtype = tensor.info.dtype;
    const Round::Range range = round.range(rank, slice);
    for (const Holder& holder : tensor.holders) {
      auto& buffer = to[static_cast<std::size_t>(holder.rank)];
      for (const Segment& segment : segments_within(holder.runs, range.begin, range.end)) {
        const auto piece =
            mine.subspan(size_of(dtype, segment.global - range.block_begin), size_of(dtype, segment.length));
        buffer.insert(buffer.end(), piece.begin(), piece.end());
      }
    }
  }
  const std::vector<std::vector<std::byte>> from = group.all_to_all(to);
  for (std::size_t owner = 0; owner < round.size(); ++owner) {
    const HeldTensor& tensor = *round.block(owner).tensor;
    const Round::Range range = round.range(owner, slice);
    std::span<const std::byte> left = from[owner];
    for (const Holder& holder : tensor.holders) {
      if (holder.rank != group.rank()) continue;
      const std::vector<Segment> segments = segments_within(holder.runs, range.begin, range.end);
      const std::size_t bytes = size_of(tensor.info.dtype, length_of(segments));
      keep_failure(failure, [&] {
        require(bytes <= left.size(), "rank {} sent {} bytes too few of a slice", owner, bytes - left.size());
        memory.scatter(parts[static_cast<std::size_t>(holder.part)].local, segments, tensor.info.dtype,
                       left.first(bytes));
      });
      left = left.subspan(std::min(bytes, left.size()));
    }
  }
}

}  // namespace

std::int64_t block_count(const TensorInfo& tensor) {
  return divide_round_up(tensor.bytes(), kBlockBytes);
}

std::int64_t block_bytes(const TensorInfo& tensor, std::int64_t block) {
  return std::min(kBlockBytes, tensor.bytes() - block * kBlockBytes);
}

std::vector<TensorInfo> tensors_of_parts(const HostGroup& group, std::span<const TensorPart> parts) {
  std::vector<TensorInfo> infos;
  for (HeldTensor& tensor : gather_holders(group, parts)) infos.push_back(std::move(tensor.info));
  return infos;
}

void for_each_block(const HostGroup& group, Queue& queue, std::span<const TensorPart> parts,
                    const BlockVisitor& visit) {
  const std::vector<HeldTensor> tensors = gather_holders(group, parts);
  const std::vector<Block> blocks = list_blocks(tensors);
  const auto rank = static_cast<std::size_t>(group.rank());
  PartMemory memory(queue);
  std::vector<std::byte> mine;
  for (std::size_t first = 0; first < blocks.size(); first += static_cast<std::size_t>(group.size())) {
    const Round round(group, blocks, first);
    std::exception_ptr failure;
    const bool owner = rank < round.size();
    if (owner)
      mine.resize(
          static_cast<std::size_t>(block_bytes(round.block(rank).tensor->info, round.block(rank).index)));
    for (std::int64_t slice = 0; slice < round.slices(); ++slice)
      gather_slice(group, memory, parts, round, slice, mine, failure);
    if (owner)
      keep_failure(failure, [&] { visit(round.block(rank).tensor->info, round.block(rank).index, mine); });
    agree(group, failure);
  }
}

void scatter_blocks(const HostGroup& group, Queue& queue, std::span<const TensorPart> parts,
                    const BlockProvider& provide) {
  const std::vector<HeldTensor> tensors = gather_holders(group, parts);
  const std::vector<Block> blocks = list_blocks(tensors);
  const auto rank = static_cast<std::size_t>(group.rank());
  PartMemory memory(queue);
  std::vector<std::byte> mine;
  for (std::size_t first = 0; first < blocks.size(); first += static_cast<std::size_t>(group.size())) {
    const Round round(group, blocks, first);
    std::exception_ptr failure;
    if (rank < round.size()) {
      const Block& block = round.block(rank);
      mine.resize(static_cast<std::size_t>(block_bytes(block.tensor->info, block.index)));
      keep_failure(failure, [&] { provide(block.tensor->info, block.index, mine); });
    }
    // What is wrong must not reach anybody's memory.
    agree(group, failure);
    for (std::int64_t slice = 0; slice < round.slices(); ++slice)
      scatter_slice(group, memory, parts, round, slice, mine, failure);
    agree(group, failure);
  }
}

}  // namespace verne
