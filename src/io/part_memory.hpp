#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "verne/io/part_blocks.hpp"
#include "verne/tensor/queue.hpp"

namespace verne {

/// Where segments' elements stand in host memory.
enum class Packing {
  in_block,          ///< at their places in the block
  one_after_another  ///< as the segments follow each other
};

/// Puts elements from host memory into the local memory of parts, converting dtypes.
class PartMemory {
 public:
  PartMemory(Queue& queue, const PartBlocks& parts) : queue_(queue), parts_(parts) {}
  /// `from` holds elements of `dtype` of a block that begins at `block_begin`.
  void scatter(std::span<const Segment> segments, DType dtype, std::span<const std::byte> from,
               Packing packing, std::int64_t block_begin);

 private:
  struct Piece {
    std::int64_t local, length;
    std::span<const std::byte> from;
  };
  void put(const Tensor& local, DType dtype, std::vector<Piece>& pieces);

  Queue& queue_;
  const PartBlocks& parts_;
  std::vector<std::byte> staging_;
};

}  // namespace verne
