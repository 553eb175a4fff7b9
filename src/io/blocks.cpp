#include "verne/io/blocks.hpp"

#include <algorithm>

#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"

namespace verne {

std::int64_t block_count(const TensorInfo& tensor) {
  return divide_round_up(tensor.bytes(), kBlockBytes);
}

std::int64_t block_bytes(const TensorInfo& tensor, std::int64_t block) {
  return std::min(kBlockBytes, tensor.bytes() - block * kBlockBytes);
}

BlockIndex::BlockIndex(std::vector<TensorInfo> tensors) : tensors_(std::move(tensors)) {
  first_.reserve(tensors_.size());
  for (const TensorInfo& tensor : tensors_) {
    first_.push_back(blocks_);
    blocks_ += block_count(tensor);
  }
}

BlockIndex::Place BlockIndex::place(std::int64_t number) const {
  require(number >= 0 && number < blocks_, "block {} of {}", number, blocks_);
  // The last tensor that begins at or before it: those without elements begin where the next one does.
  const auto tensor =
      static_cast<std::size_t>(std::upper_bound(first_.begin(), first_.end(), number) - first_.begin()) - 1;
  const TensorInfo& info = tensors_[tensor];
  const std::int64_t block = number - first_[tensor];
  const std::int64_t begin = block * (kBlockBytes * 8 / bits(info.dtype));
  return {tensor, block, begin, begin + block_bytes(info, block) * 8 / bits(info.dtype)};
}

}  // namespace verne
