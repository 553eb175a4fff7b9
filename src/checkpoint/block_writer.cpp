#include "block_writer.hpp"

#include <algorithm>

#include "verne/base/error.hpp"
#include "verne/io/block_hash.hpp"
#include "verne/io/convert.hpp"

namespace verne {
namespace {

/// What is written in one piece sets off for the device at once from this length on.
constexpr std::int64_t kSyncBytes = std::int64_t{1} << 20;

std::size_t size_of(DType type, std::int64_t count) {
  return static_cast<std::size_t>(bytes_of(type, count));
}

}  // namespace

std::int64_t held_bytes(const PartBlocks& parts, std::int64_t block) {
  std::int64_t bytes = 0;
  for (const Segment& segment : parts.segments(block))
    bytes += bytes_of(parts.parts()[segment.part].local.dtype(), segment.length);
  return bytes;
}

void copy_block(Queue& queue, const PartBlocks& parts, std::int64_t block, std::span<std::byte> to) {
  const std::vector<Segment> segments = parts.segments(block);
  for (std::size_t first = 0; first < segments.size();) {
    std::size_t last = first + 1;
    std::int64_t length = segments[first].length;
    while (last < segments.size() && segments[last].part == segments[first].part &&
           segments[last].local == segments[first].local + length)
      length += segments[last++].length;
    const Tensor& local = parts.parts()[segments[first].part].local;
    const std::size_t bytes = size_of(local.dtype(), length);
    queue.copy_to_host(to.first(bytes), local.view({local.count()}).rows(segments[first].local, length));
    to = to.subspan(bytes);
    first = last;
  }
}

std::vector<BlockWriter::Piece> BlockWriter::pieces_of(std::int64_t block,
                                                       std::optional<std::span<const std::byte>> held) const {
  std::vector<Piece> pieces;
  for (const Segment& segment : parts_.segments(block)) {
    const Tensor& local = parts_.parts()[segment.part].local;
    const std::size_t bytes = size_of(local.dtype(), segment.length);
    std::span<const std::byte> from;
    if (held) {
      from = held->first(bytes);
      held = held->subspan(bytes);
    } else {
      from = {local.raw() + size_of(local.dtype(), segment.local), bytes};
    }
    pieces.push_back({segment.global, segment.length, local.dtype(), from});
  }
  return pieces;
}

/// Pieces that are neighbours in the file, as the file has them: where they stand if they are neighbours
/// there too and need no conversion, else in the buffer.
std::span<const std::byte> BlockWriter::stored_bytes(std::span<const Piece> pieces, DType stored) {
  bool ready = true;
  std::int64_t elements = 0;
  const std::byte* next = pieces[0].bytes.data();
  for (const Piece& piece : pieces) {
    ready = ready && piece.dtype == stored && piece.bytes.data() == next;
    next = piece.bytes.data() + piece.bytes.size();
    elements += piece.length;
  }
  if (ready) return {pieces[0].bytes.data(), size_of(stored, elements)};
  buffer_.resize(std::max(buffer_.size(), size_of(stored, elements)));
  std::span<std::byte> to = buffer_;
  for (const Piece& piece : pieces) {
    const std::size_t bytes = size_of(stored, piece.length);
    convert(piece.dtype, piece.bytes, stored, to.first(bytes));
    to = to.subspan(bytes);
  }
  return std::span(buffer_).first(size_of(stored, elements));
}

std::optional<BlockChecksum> BlockWriter::write(std::int64_t block,
                                                std::optional<std::span<const std::byte>> held) {
  const BlockIndex::Place place = parts_.index().place(block);
  const DType stored = parts_.index().tensors()[place.tensor].dtype;
  const std::vector<Piece> pieces = pieces_of(block, held);
  std::optional<BlockChecksum> checksum;
  for (std::size_t first = 0; first < pieces.size();) {
    std::size_t last = first + 1;
    while (last < pieces.size() && pieces[last].global == pieces[last - 1].global + pieces[last - 1].length)
      ++last;
    const std::span<const std::byte> bytes =
        stored_bytes(std::span(pieces).subspan(first, last - first), stored);
    const std::int64_t at = offsets_[place.tensor] + bytes_of(stored, pieces[first].global);
    const bool whole = bytes_of(stored, place.elements()) == std::ssize(bytes);
    BlockHash hash;
    for_each_piece(bytes, [&](std::int64_t offset, std::span<const std::byte> piece) {
      if (whole) hash.update(piece);
      file_.write_at(at + offset, piece);
    });
    // Not where other ranks write between: their pages would go to the device twice.
    if (std::ssize(bytes) >= kSyncBytes) file_.begin_sync(at, std::ssize(bytes));
    if (whole) checksum = BlockChecksum{block, hash.value()};
    first = last;
  }
  return checksum;
}

}  // namespace verne
