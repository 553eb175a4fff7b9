#pragma once
#include <cstdint>
#include <vector>

#include "verne/io/tensor_part.hpp"

namespace verne {

/// Tensors are read, checked and sent in blocks of this many bytes of their row-major data as stored; the
/// last block of a tensor is shorter. Checksums are taken over the same blocks.
inline constexpr std::int64_t kBlockBytes = std::int64_t{16} << 20;

/// 0 for a tensor without elements.
std::int64_t block_count(const TensorInfo& tensor);
/// Bytes of block `block`.
std::int64_t block_bytes(const TensorInfo& tensor, std::int64_t block);

/// Numbers the blocks of a list of tensors, one tensor after the other: what ranks speak of when they share
/// out work.
class BlockIndex {
 public:
  explicit BlockIndex(std::vector<TensorInfo> tensors);

  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  std::int64_t blocks() const { return blocks_; }
  /// Number of a tensor's block.
  std::int64_t number(std::size_t tensor, std::int64_t block) const { return first_[tensor] + block; }

  /// A numbered block: elements [begin, end) of its tensor.
  struct Place {
    std::size_t tensor;
    std::int64_t block;  ///< within the tensor
    std::int64_t begin, end;
    std::int64_t elements() const { return end - begin; }
  };
  Place place(std::int64_t number) const;
  const TensorInfo& tensor_of(std::int64_t number) const { return tensors_[place(number).tensor]; }

 private:
  std::vector<TensorInfo> tensors_;
  std::vector<std::int64_t> first_;  ///< number of each tensor's first block
  std::int64_t blocks_ = 0;
};

/// The rank that answers for a block: all who give or want elements of it tell this rank.
inline int home_of(std::int64_t block, int ranks) {
  return static_cast<int>(block % ranks);
}

}  // namespace verne
