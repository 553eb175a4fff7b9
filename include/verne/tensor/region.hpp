#pragma once
#include <cstdint>
#include <vector>

#include "verne/tensor/tensor.hpp"

namespace verne {

/// The bytes that a tensor's elements lie in: `rows` runs of `row_bytes`, `stride` bytes from the start of
/// one to the start of the next. A contiguous region is one row; the rows of others have gaps between them.
class Region {
 public:
  Region() = default;  ///< of no bytes
  explicit Region(const Tensor& tensor);
  /// The bytes [begin, end).
  Region(std::uintptr_t begin, std::uintptr_t end);
  Region(std::uintptr_t begin, std::int64_t rows, std::int64_t row_bytes, std::int64_t stride);

  bool empty() const { return rows_ == 0; }
  bool contiguous() const { return rows_ <= 1; }
  std::uintptr_t begin() const { return begin_; }
  std::uintptr_t end() const { return empty() ? begin_ : row_begin(rows_ - 1) + row_bytes(); }
  std::int64_t rows() const { return rows_; }
  std::int64_t stride() const { return stride_; }
  std::uintptr_t row_bytes() const { return static_cast<std::uintptr_t>(row_bytes_); }
  std::uintptr_t row_begin(std::int64_t row) const {
    return begin_ + static_cast<std::uintptr_t>(row * stride_);
  }
  Region row(std::int64_t row) const { return {row_begin(row), row_begin(row) + row_bytes()}; }

 private:
  std::uintptr_t begin_ = 0;
  std::int64_t rows_ = 0, row_bytes_ = 0, stride_ = 0;
};

/// Whether a byte lies in both. In constant time unless both have gaps and their strides differ.
bool overlap(const Region& a, const Region& b);
/// Whether every byte of `inner` lies in `outer`.
bool covers(const Region& outer, const Region& inner);
/// The bytes of `region` that do not lie in `taken`, as regions that do not overlap.
std::vector<Region> subtract(const Region& region, const Region& taken);
/// The bytes of `region` in [begin, end), as regions that do not overlap.
std::vector<Region> clip(const Region& region, std::uintptr_t begin, std::uintptr_t end);

}  // namespace verne
