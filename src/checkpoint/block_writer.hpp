#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "draft.hpp"
#include "verne/io/part_blocks.hpp"
#include "verne/tensor/queue.hpp"

namespace verne {

/// Bytes that the elements of a block take as the parts hold them.
std::int64_t held_bytes(const PartBlocks& parts, std::int64_t block);
/// Copies them, one segment after the other, to memory of `allocate_host`; in few copies where segments are
/// neighbours in local memory. Done once an event recorded after the call has passed.
void copy_block(Queue& queue, const PartBlocks& parts, std::int64_t block, std::span<std::byte> to);

/// Writes a rank's elements to their places in a file, converted, in as few calls as they lie in pieces
/// there. Calls neither HDF5 nor MPI nor a queue.
class BlockWriter {
 public:
  /// `offsets`: byte of the file where each tensor of the index begins.
  BlockWriter(const File& file, const PartBlocks& parts, std::span<const std::int64_t> offsets)
      : file_(file), parts_(parts), offsets_(offsets) {}

  /// Writes what the parts hold of a block; its checksum where that is all of it. `held` is what copy_block
  /// copied; without it elements are taken from the parts' local memory, which the host then can read.
  std::optional<BlockChecksum> write(std::int64_t block, std::optional<std::span<const std::byte>> held);

 private:
  /// A segment's elements in memory.
  struct Piece {
    std::int64_t global, length;
    DType dtype;
    std::span<const std::byte> bytes;
  };
  std::vector<Piece> pieces_of(std::int64_t block, std::optional<std::span<const std::byte>> held) const;
  std::span<const std::byte> stored_bytes(std::span<const Piece> pieces, DType stored);

  const File& file_;
  const PartBlocks& parts_;
  std::span<const std::int64_t> offsets_;
  std::vector<std::byte> buffer_;
};

}  // namespace verne
