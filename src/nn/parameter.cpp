#include "verne/nn/parameter.hpp"

#include <algorithm>

#include "verne/base/checked.hpp"

namespace verne {

std::int64_t Parameter::first_copied() const {
  switch (placement.copies) {
    case Placement::Copies::none:
      return shape.count();
    case Placement::Copies::kv_heads:
      return placement.first_copied_row * (shape.count() / shape[0]);
    default:
      return 0;
  }
}

std::vector<ElementRuns> row_block(std::int64_t first, std::int64_t count, std::int64_t width,
                                   std::int64_t local_row) {
  if (count <= 0) return {};
  return {{.global = first * width, .local = local_row * width, .length = count * width}};
}

std::vector<ElementRuns> column_block(std::int64_t rows, std::int64_t width, std::int64_t first,
                                      std::int64_t count) {
  if (count == width) return row_block(0, rows, width, 0);
  return {{.global = first,
           .local = 0,
           .length = count,
           .count = rows,
           .global_stride = width,
           .local_stride = count}};
}

std::vector<ElementRuns> clip_runs(const std::vector<ElementRuns>& runs, std::int64_t begin, std::int64_t end,
                                   std::int64_t shift) {
  std::vector<ElementRuns> clipped;
  // The part of run i of `r` inside [begin, end).
  const auto add_partial = [&](const ElementRuns& r, std::int64_t i) {
    const std::int64_t local = r.local + i * r.local_stride;
    const std::int64_t from = std::max(local, begin), to = std::min(local + r.length, end);
    if (from < to)
      clipped.push_back({.global = r.global + i * r.global_stride + (from - local),
                         .local = from + shift,
                         .length = to - from});
  };
  for (const ElementRuns& r : runs) {
    if (r.count == 1) {
      add_partial(r, 0);
      continue;
    }
    // Whole runs are [first, last); the run before and the run from `last` on may be cut.
    const auto index_at = [&](std::int64_t local) {  // runs that start before `local`
      return std::clamp<std::int64_t>(divide_round_up(local - r.local, r.local_stride), 0, r.count);
    };
    const std::int64_t first = begin <= r.local ? 0 : index_at(begin);
    const std::int64_t ends = end - r.length - r.local;  // start of the last run that still ends inside
    const std::int64_t last = ends < 0 ? 0 : std::min(r.count, ends / r.local_stride + 1);
    if (first > 0) add_partial(r, first - 1);
    if (first < last) {
      ElementRuns whole = r;
      whole.global += first * r.global_stride;
      whole.local += first * r.local_stride + shift;
      whole.count = last - first;
      clipped.push_back(whole);
    }
    const std::int64_t next = std::max(first, last);
    if (next < r.count) add_partial(r, next);
  }
  return clipped;
}

}  // namespace verne
