#include "part_memory.hpp"

#include <algorithm>

#include "verne/base/error.hpp"
#include "verne/io/convert.hpp"

namespace verne {
namespace {

/// Largest piece that goes from the host to a device at once.
constexpr std::int64_t kStagingBytes = std::int64_t{8} << 20;

std::size_t size_of(DType type, std::int64_t count) {
  return static_cast<std::size_t>(bytes_of(type, count));
}

}  // namespace

void PartMemory::scatter(std::span<const Segment> segments, DType dtype, std::span<const std::byte> from,
                         Packing packing, std::int64_t block_begin) {
  std::vector<Piece> pieces;
  std::int64_t packed = 0;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = segments[i];
    const Tensor& local = parts_.parts()[segment.part].local;
    const std::int64_t begin = packing == Packing::in_block ? segment.global - block_begin : packed;
    packed += segment.length;
    const std::int64_t most = kStagingBytes * 8 / bits(local.dtype());
    for (std::int64_t done = 0; done < segment.length; done += most) {
      const std::int64_t length = std::min(most, segment.length - done);
      pieces.push_back(
          {segment.local + done, length, from.subspan(size_of(dtype, begin + done), size_of(dtype, length))});
    }
    if (i + 1 == segments.size() || segments[i + 1].part != segment.part) {
      put(local, dtype, pieces);
      pieces.clear();
    }
  }
}

void PartMemory::put(const Tensor& local, DType dtype, std::vector<Piece>& pieces) {
  const DType held = local.dtype();
  if (queue_.kind() == QueueKind::cpu) {
    for (const Piece& piece : pieces)
      convert(dtype, piece.from, held,
              {local.raw() + size_of(held, piece.local), size_of(held, piece.length)});
    return;
  }
  // Neighbours in local memory travel together: a packed column block is one copy, not one a row.
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.local < b.local; });
  const Tensor flat = local.view({local.count()});
  const std::int64_t most = kStagingBytes * 8 / bits(held);
  for (std::size_t first = 0; first < pieces.size();) {
    std::size_t last = first;
    std::int64_t length = 0;
    while (last < pieces.size() && pieces[last].local == pieces[first].local + length &&
           length + pieces[last].length <= most)
      length += pieces[last++].length;
    const Tensor target = flat.rows(pieces[first].local, length);
    if (last == first + 1 && dtype == held) {
      queue_.upload(target, pieces[first].from);
      first = last;
      continue;
    }
    staging_.resize(size_of(held, length));
    for (std::size_t i = first; i < last; ++i)
      convert(dtype, pieces[i].from, held,
              std::span(staging_).subspan(size_of(held, pieces[i].local - pieces[first].local),
                                          size_of(held, pieces[i].length)));
    queue_.upload(target, std::span<const std::byte>(staging_));
    first = last;
  }
}

}  // namespace verne
