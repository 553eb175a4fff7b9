#include "verne/tensor/tensor.hpp"

#include <algorithm>

namespace verne {
namespace {

std::int64_t inner_count(const Shape& shape) {
  std::int64_t product = 1;
  for (int axis = 1; axis < shape.rank(); ++axis) product *= shape[axis];
  return product;
}

}  // namespace

Shape::Shape(std::initializer_list<std::int64_t> extents)
    : Shape(std::span<const std::int64_t>(extents.begin(), extents.size())) {}

Shape::Shape(std::span<const std::int64_t> extents) : rank_(static_cast<int>(extents.size())) {
  require(extents.size() <= kMaxRank, "shape of {} axes; at most {} are supported", extents.size(),
          int{kMaxRank});
  std::copy(extents.begin(), extents.end(), extents_.begin());
}

std::int64_t Shape::count() const {
  std::int64_t product = 1;
  for (std::int64_t extent : extents()) product *= extent;
  return product;
}

std::string Shape::text() const {
  return fmt::format("[{}]", fmt::join(extents(), ", "));
}

Tensor::Tensor(std::byte* data, DType dtype, Shape shape)
    : data_(data), dtype_(dtype), shape_(shape), stride_(inner_count(shape)) {}

Tensor::Tensor(std::byte* data, DType dtype, Shape shape, std::int64_t leading_stride)
    : data_(data), dtype_(dtype), shape_(shape), stride_(leading_stride) {
  require(stride_ >= inner_count(shape), "leading stride {} of a tensor {}", stride_, shape.text());
}

bool Tensor::contiguous() const {
  return rank() == 0 || stride_ == inner_count(shape_) || shape_[0] <= 1;
}

Tensor Tensor::rows(std::int64_t begin, std::int64_t count) const {
  require(rank() >= 1 && begin >= 0 && count >= 0 && begin + count <= size(0), "rows {}+{} of a tensor {}",
          begin, count, shape_.text());
  std::array<std::int64_t, Shape::kMaxRank> extents{};
  std::copy(shape_.extents().begin(), shape_.extents().end(), extents.begin());
  extents[0] = count;
  Tensor part = *this;
  part.shape_ = Shape(std::span<const std::int64_t>(extents.data(), static_cast<std::size_t>(rank())));
  part.data_ = data_ + bytes_of(dtype_, begin * stride_);
  return part;
}

Tensor Tensor::columns(std::int64_t begin, std::int64_t count) const {
  require(rank() == 2 && begin >= 0 && count >= 0 && begin + count <= size(1), "columns {}+{} of a tensor {}",
          begin, count, shape_.text());
  return Tensor(data_ + bytes_of(dtype_, begin), dtype_, Shape{size(0), count}, stride_);
}

Tensor Tensor::view(Shape shape) const {
  require(shape.count() == count(), "tensor {} viewed as {}", shape_.text(), shape.text());
  if (contiguous()) return Tensor(data_, dtype_, shape);
  require(shape.rank() > 0 && shape[0] == size(0), "strided tensor {} viewed as {}", shape_.text(),
          shape.text());
  return Tensor(data_, dtype_, shape, stride_);
}

}  // namespace verne
