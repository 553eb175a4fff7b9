#include "verne/io/tensor_part.hpp"

#include <fmt/ranges.h>

namespace verne {

std::string UnsupportedTensor::text() const {
  return fmt::format("{} of dtype {} and shape [{}]", name, dtype, fmt::join(shape, ", "));
}

const std::vector<UnsupportedTensor>& TensorSource::unsupported() const {
  static const std::vector<UnsupportedTensor> none;
  return none;
}

const TensorInfo* TensorSource::find(const std::string& name) const {
  for (const TensorInfo& tensor : tensors())
    if (tensor.name == name) return &tensor;
  return nullptr;
}

}  // namespace verne
