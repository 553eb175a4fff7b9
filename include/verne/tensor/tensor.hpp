#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "verne/base/error.hpp"
#include "verne/tensor/dtype.hpp"

namespace verne {

/// Up to four extents, slowest first.
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents);
  explicit Shape(std::span<const std::int64_t> extents);

  int rank() const { return rank_; }
  std::int64_t operator[](int axis) const { return extents_[static_cast<std::size_t>(axis)]; }
  std::int64_t count() const;  ///< product of the extents; 1 for rank 0
  std::span<const std::int64_t> extents() const { return {extents_.data(), static_cast<std::size_t>(rank_)}; }
  std::string text() const;  ///< "[2, 128, 64]"
  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  std::array<std::int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

/// A typed view; it owns nothing. Row-major; only the leading axis may have a stride of its own (a column
/// block of a matrix seen as rows). The memory belongs to the queue that allocated it: host memory for cpu,
/// device memory for cuda, none at all for meta.
class Tensor {
 public:
  Tensor() = default;
  Tensor(std::byte* data, DType dtype, Shape shape);
  Tensor(std::byte* data, DType dtype, Shape shape, std::int64_t leading_stride);

  bool empty() const { return data_ == nullptr; }
  explicit operator bool() const { return data_ != nullptr; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  std::int64_t size(int axis) const { return shape_[axis]; }
  std::int64_t count() const { return shape_.count(); }
  std::int64_t bytes() const { return bytes_of(dtype_, count()); }  ///< of the elements, gaps not counted
  /// Elements from one index of the leading axis to the next.
  std::int64_t stride() const { return stride_; }
  bool contiguous() const;

  std::byte* raw() const { return data_; }
  template <class T>
  T* data() const {
    require(dtype_ == dtype_of<T>(), "tensor of {} read as {}", name(dtype_), name(dtype_of<T>()));
    return reinterpret_cast<T*>(data_);
  }
  /// The elements of a contiguous tensor in host memory.
  template <class T>
  std::span<T> span() const {
    require(contiguous(), "span of a strided tensor {}", shape_.text());
    return {data<T>(), static_cast<std::size_t>(count())};
  }

  /// Indices [begin, begin + count) of the leading axis.
  Tensor rows(std::int64_t begin, std::int64_t count) const;
  /// Columns [begin, begin + count) of a matrix.
  Tensor columns(std::int64_t begin, std::int64_t count) const;
  /// The same elements in another shape. A strided tensor keeps its leading extent.
  Tensor view(Shape shape) const;

 private:
  std::byte* data_ = nullptr;
  DType dtype_ = DType::f32;
  Shape shape_;
  std::int64_t stride_ = 0;
};

/// What a matmul eats: the data, and its scale where the data is quantised. In bf16 and float32 it is just
/// the data.
struct Operand {
  Tensor data;
  Tensor scale;

  Operand() = default;
  Operand(Tensor tensor) : data(tensor) {}  // NOLINT(google-explicit-constructor): every tensor is an operand
};

}  // namespace verne
