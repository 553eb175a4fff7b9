#include "verne/tensor/region.hpp"

#include <algorithm>

namespace verne {
namespace {

/// The rows of a region that share bytes with [begin, end): from `first` to before `last`.
struct RowRange {
  std::int64_t first, last;
};
RowRange rows_meeting(const Region& region, std::uintptr_t begin, std::uintptr_t end) {
  if (region.empty() || begin >= end || region.end() <= begin || end <= region.begin()) return {0, 0};
  if (region.contiguous()) return {0, 1};
  const auto stride = static_cast<std::uintptr_t>(region.stride());
  const std::uintptr_t first_end = region.begin() + region.row_bytes();
  const std::uintptr_t first = begin < first_end ? 0 : (begin - first_end) / stride + 1;
  const std::uintptr_t last = (end - region.begin() - 1) / stride + 1;
  return {static_cast<std::int64_t>(first), std::min(static_cast<std::int64_t>(last), region.rows())};
}

/// Where rows of one stride lie with respect to each other: row i of `b` starts `column` bytes, less than the
/// stride, behind the start of row i + `row` of `a`.
struct Offset {
  std::int64_t row, column;
};
Offset offset(const Region& a, const Region& b) {
  const auto distance = static_cast<std::int64_t>(b.begin() - a.begin());
  const std::int64_t column = (distance % a.stride() + a.stride()) % a.stride();
  return {(distance - column) / a.stride(), column};
}

bool row_ranges_meet(const Region& a, std::int64_t row, const Region& b) {
  return row < a.rows() && row + b.rows() > 0;
}

bool overlap_of_one_stride(const Region& a, const Region& b) {
  const auto [row, column] = offset(a, b);
  const auto width = static_cast<std::int64_t>(a.row_bytes());
  if (column < width && row_ranges_meet(a, row, b)) return true;
  // b's rows may reach into the next of a's.
  return column + static_cast<std::int64_t>(b.row_bytes()) > a.stride() && row_ranges_meet(a, row + 1, b);
}

void append(std::vector<Region>& regions, const Region& region) {
  if (!region.empty()) regions.push_back(region);
}
void append(std::vector<Region>& regions, const std::vector<Region>& more) {
  regions.insert(regions.end(), more.begin(), more.end());
}

std::vector<Region> subtract_from_each(const std::vector<Region>& regions, const Region& taken) {
  std::vector<Region> left;
  for (const Region& region : regions) append(left, subtract(region, taken));
  return left;
}

Region some_rows(const Region& region, std::int64_t first, std::int64_t last) {
  return {region.row_begin(first), last - first, static_cast<std::int64_t>(region.row_bytes()),
          region.stride()};
}

std::vector<Region> subtract_interval(const Region& region, std::uintptr_t begin, std::uintptr_t end) {
  const auto [first, last] = rows_meeting(region, begin, end);
  std::vector<Region> left;
  append(left, some_rows(region, 0, first));
  append(left, Region(region.row_begin(first), begin));
  append(left, Region(end, region.row_begin(last - 1) + region.row_bytes()));
  append(left, some_rows(region, last, region.rows()));
  return left;
}

/// What `taken` leaves of a contiguous region: a head, the gaps between the rows, a tail.
std::vector<Region> subtract_rows(const Region& region, const Region& taken) {
  const auto [first, last] = rows_meeting(taken, region.begin(), region.end());
  const std::uintptr_t row_end = taken.row_begin(first) + taken.row_bytes();
  std::vector<Region> left;
  append(left, Region(region.begin(), taken.row_begin(first)));
  append(left, Region(row_end, last - first - 1,
                      taken.stride() - static_cast<std::int64_t>(taken.row_bytes()), taken.stride()));
  append(left, Region(taken.row_begin(last - 1) + taken.row_bytes(), region.end()));
  return left;
}

std::vector<Region> subtract_of_one_stride(const Region& region, const Region& taken) {
  const auto [row, column] = offset(region, taken);
  const auto width = static_cast<std::int64_t>(region.row_bytes()),
             taken_width = static_cast<std::int64_t>(taken.row_bytes());
  const std::int64_t stride = region.stride();
  if (column + taken_width > stride) {  // reaches into the next row: as two blocks of columns
    const std::int64_t here = stride - column;
    const Region head(taken.begin(), taken.rows(), here, stride);
    const Region rest(taken.begin() + static_cast<std::uintptr_t>(here), taken.rows(), taken_width - here,
                      stride);
    return subtract_from_each(subtract(region, head), rest);
  }
  const std::int64_t first = std::max<std::int64_t>(row, 0),
                     last = std::min(row + taken.rows(), region.rows());
  const std::int64_t end_column = std::min(column + taken_width, width);
  if (first >= last || column >= width) return {region};
  std::vector<Region> left;
  append(left, some_rows(region, 0, first));
  append(left, Region(region.row_begin(first), last - first, column, stride));
  append(left, Region(region.row_begin(first) + static_cast<std::uintptr_t>(end_column), last - first,
                      width - end_column, stride));
  append(left, some_rows(region, last, region.rows()));
  return left;
}

}  // namespace

Region::Region(std::uintptr_t begin, std::uintptr_t end)
    : Region(begin, 1, static_cast<std::int64_t>(end) - static_cast<std::int64_t>(begin), 0) {}

Region::Region(std::uintptr_t begin, std::int64_t rows, std::int64_t row_bytes, std::int64_t stride)
    : begin_(begin), rows_(rows), row_bytes_(row_bytes), stride_(stride) {
  if (rows <= 0 || row_bytes <= 0) {
    *this = Region();
  } else if (rows == 1 || row_bytes == stride) {
    rows_ = 1;
    row_bytes_ = stride_ = rows * row_bytes;
  }
}

Region::Region(const Tensor& tensor) {
  const auto begin = reinterpret_cast<std::uintptr_t>(tensor.raw());  // NOLINT: compared, never read
  if (tensor.empty()) return;
  if (tensor.contiguous()) {
    *this = Region(begin, 1, tensor.bytes(), 0);
  } else {
    *this = Region(begin, tensor.size(0), tensor.bytes() / tensor.size(0),
                   bytes_of(tensor.dtype(), tensor.stride()));
  }
}

bool overlap(const Region& a, const Region& b) {
  if (a.empty() || b.empty() || a.end() <= b.begin() || b.end() <= a.begin()) return false;
  if (a.contiguous() && b.contiguous()) return true;
  const auto meets = [](const Region& region, const Region& interval) {
    const auto [first, last] = rows_meeting(region, interval.begin(), interval.end());
    return first < last;
  };
  if (a.contiguous()) return meets(b, a);
  if (b.contiguous()) return meets(a, b);
  if (a.stride() == b.stride()) return overlap_of_one_stride(a, b);
  const Region& fewer = a.rows() < b.rows() ? a : b;
  const Region& more = a.rows() < b.rows() ? b : a;
  for (std::int64_t row = 0; row < fewer.rows(); ++row) {
    if (meets(more, fewer.row(row))) return true;
  }
  return false;
}

bool covers(const Region& outer, const Region& inner) {
  if (inner.empty()) return true;
  if (outer.end() < inner.end()) return false;
  if (!inner.contiguous() && inner.stride() == outer.stride()) return subtract(inner, outer).empty();
  for (std::int64_t r = 0; r < (outer.contiguous() ? 1 : inner.rows()); ++r) {
    const Region row = outer.contiguous() ? Region(inner.begin(), inner.end()) : inner.row(r);
    // Rows with gaps between them do not join: one must hold it all.
    const auto [first, last] = rows_meeting(outer, row.begin(), row.end());
    if (last != first + 1 || row.begin() < outer.row_begin(first) || outer.row(first).end() < row.end())
      return false;
  }
  return true;
}

std::vector<Region> subtract(const Region& region, const Region& taken) {
  if (region.empty()) return {};
  if (!overlap(region, taken)) return {region};
  if (taken.contiguous()) return subtract_interval(region, taken.begin(), taken.end());
  if (region.contiguous()) return subtract_rows(region, taken);
  if (region.stride() == taken.stride()) return subtract_of_one_stride(region, taken);
  std::vector<Region> left{region};
  const auto [first, last] = rows_meeting(taken, region.begin(), region.end());
  for (std::int64_t row = first; row < last; ++row) left = subtract_from_each(left, taken.row(row));
  return left;
}

std::vector<Region> clip(const Region& region, std::uintptr_t begin, std::uintptr_t end) {
  auto [first, last] = rows_meeting(region, begin, end);
  std::vector<Region> inside;
  const auto take_apart = [&](std::int64_t row) {
    const Region whole = region.row(row);
    append(inside, Region(std::max(begin, whole.begin()), std::min(end, whole.end())));
  };
  if (first < last && region.row_begin(first) < begin) take_apart(first++);
  if (first < last && end < region.row(last - 1).end()) take_apart(--last);
  if (first < last) append(inside, some_rows(region, first, last));
  return inside;
}

}  // namespace verne
