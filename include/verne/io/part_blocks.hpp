#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "verne/io/blocks.hpp"
#include "verne/io/tensor_part.hpp"

namespace verne {

/// Consecutive elements that a logical tensor and the local memory of one part share.
struct Segment {
  std::int64_t global, local, length;
  std::size_t part;  ///< among PartBlocks::parts
};

/// What one rank gives or wants of a block, in numbers that show a missing or a doubled element.
struct BlockShare {
  std::int64_t block;
  std::int64_t elements;
  std::uint64_t positions;  ///< Σ of the elements' places in the block, modulo 2^64
};

/// A rank's parts, block by block of the tensors that they belong to.
class PartBlocks {
 public:
  struct Part {
    std::size_t tensor;  ///< in the index
    Tensor local;
    std::vector<ElementRuns> runs;
  };

  /// tensor_of[i] is the tensor in `index`, which must outlive this, that parts[i] belongs to. InternalError
  /// where a shape differs, a run leaves its tensor or its local memory, or dtypes do not convert.
  PartBlocks(const BlockIndex& index, std::span<const TensorPart> parts,
             std::span<const std::size_t> tensor_of);

  const BlockIndex& index() const { return *index_; }
  /// Those that hold elements, by tensor.
  const std::vector<Part>& parts() const { return parts_; }
  /// Every block that the parts hold elements of, ascending.
  const std::vector<BlockShare>& shares() const { return shares_; }
  /// The elements of a block that the parts hold, ascending by `global`.
  std::vector<Segment> segments(std::int64_t block) const;

 private:
  std::vector<Segment> segments_within(std::size_t tensor, std::int64_t begin, std::int64_t end) const;
  void add_shares(std::size_t tensor, std::span<const Part> parts);

  const BlockIndex* index_;
  std::vector<Part> parts_;
  std::vector<BlockShare> shares_;
};

}  // namespace verne
