#include "verne/io/tensor_part.hpp"

#include <fmt/ranges.h>

#include "verne/base/error.hpp"
#include "verne/io/blocks.hpp"

namespace verne {

std::string UnsupportedTensor::text() const {
  return fmt::format("{} of dtype {} and shape [{}]", name, dtype, fmt::join(shape, ", "));
}

const std::vector<UnsupportedTensor>& TensorSource::unsupported() const {
  static const std::vector<UnsupportedTensor> none;
  return none;
}

void TensorSource::read_block(const TensorInfo& tensor, std::int64_t block, std::span<std::byte> to) const {
  require(std::ssize(to) == block_bytes(tensor, block), "{} bytes for block {} of {}", to.size(), block,
          tensor.name);
  read(tensor, block * kBlockBytes, to);
}

void TensorSource::will_read_block(const TensorInfo&, std::int64_t) const {}

const TensorInfo* TensorSource::find(const std::string& name) const {
  for (const TensorInfo& tensor : tensors())
    if (tensor.name == name) return &tensor;
  return nullptr;
}

}  // namespace verne
