#include "verne/io/part_blocks.hpp"

#include <algorithm>

#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"
#include "verne/io/convert.hpp"

namespace verne {
namespace {

/// One past the last element of a run's count · stride pattern; no value where it overflows.
std::optional<std::int64_t> end_of(std::int64_t begin, std::int64_t length, std::int64_t count,
                                   std::int64_t stride) {
  const auto span = checked_multiply(count - 1, count == 1 ? std::int64_t{0} : stride);
  const auto last = span ? checked_add(begin, *span) : std::nullopt;
  return last ? checked_add(*last, length) : std::nullopt;
}

void check_part(const TensorPart& part, const TensorInfo& tensor) {
  require(part.shape == tensor.shape, "{} is given as {}, the tensor is {}", part.name, part.shape.text(),
          tensor.shape.text());
  const std::int64_t total = part.shape.count();
  for (const ElementRuns& run : part.runs) {
    require(run.length >= 0 && run.count >= 0, "{}: {} runs of {} elements", part.name, run.count,
            run.length);
    if (run.length == 0 || run.count == 0) continue;
    require(part.local && part.local.contiguous(), "{}: runs without contiguous local memory", part.name);
    require(run.count == 1 || (run.global_stride >= run.length && run.local_stride >= run.length),
            "{}: {} runs of {} elements every {} (local {}) overlap", part.name, run.count, run.length,
            run.global_stride, run.local_stride);
    const auto global_end = end_of(run.global, run.length, run.count, run.global_stride);
    const auto local_end = end_of(run.local, run.length, run.count, run.local_stride);
    require(run.global >= 0 && global_end && *global_end <= total, "{}: a run leaves the {} elements of {}",
            part.name, total, part.shape.text());
    require(run.local >= 0 && local_end && *local_end <= part.local.count(),
            "{}: a run leaves the {} elements held here", part.name, part.local.count());
    require(convertible(part.local.dtype(), tensor.dtype), "{}: no conversion between {} and {}", part.name,
            name(part.local.dtype()), name(tensor.dtype));
  }
}

/// Runs with elements; those whose pieces touch each other as one piece.
std::vector<ElementRuns> simplified(const std::vector<ElementRuns>& runs) {
  std::vector<ElementRuns> simple;
  for (ElementRuns run : runs) {
    if (run.length == 0 || run.count == 0) continue;
    if (run.count > 1 && run.global_stride == run.length && run.local_stride == run.length) {
      run.length *= run.count;
      run.count = 1;
    }
    simple.push_back(run);
  }
  return simple;
}

}  // namespace

PartBlocks::PartBlocks(const BlockIndex& index, std::span<const TensorPart> parts,
                       std::span<const std::size_t> tensor_of)
    : index_(&index) {
  require(parts.size() == tensor_of.size(), "{} parts, {} tensors of them", parts.size(), tensor_of.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    require(tensor_of[i] < index.tensors().size(), "tensor {} of {}", tensor_of[i], index.tensors().size());
    check_part(parts[i], index.tensors()[tensor_of[i]]);
    std::vector<ElementRuns> runs = simplified(parts[i].runs);
    if (!runs.empty()) parts_.push_back({tensor_of[i], parts[i].local, std::move(runs)});
  }
  std::stable_sort(parts_.begin(), parts_.end(),
                   [](const Part& a, const Part& b) { return a.tensor < b.tensor; });
  for (std::size_t first = 0; first < parts_.size();) {
    std::size_t last = first + 1;
    while (last < parts_.size() && parts_[last].tensor == parts_[first].tensor) ++last;
    add_shares(parts_[first].tensor, std::span(parts_).subspan(first, last - first));
    first = last;
  }
}

void PartBlocks::add_shares(std::size_t tensor, std::span<const Part> parts) {
  const TensorInfo& info = index_->tensors()[tensor];
  const std::int64_t block_elements = kBlockBytes * 8 / bits(info.dtype), total = info.shape.count();
  std::int64_t begin = total, end = 0;
  for (const Part& part : parts) {
    for (const ElementRuns& run : part.runs) {
      begin = std::min(begin, run.global);
      end = std::max(end, run.global + (run.count - 1) * run.global_stride + run.length);
    }
  }
  for (std::int64_t block = begin / block_elements; block * block_elements < end; ++block) {
    const std::int64_t first = block * block_elements;
    BlockShare share{index_->number(tensor, block), 0, 0};
    for (const Segment& segment : segments_within(tensor, first, std::min(first + block_elements, total))) {
      const auto place = static_cast<std::uint64_t>(segment.global - first),
                 length = static_cast<std::uint64_t>(segment.length);
      share.elements += segment.length;
      share.positions += length * place + length * (length - 1) / 2;
    }
    if (share.elements > 0) shares_.push_back(share);
  }
}

std::vector<Segment> PartBlocks::segments(std::int64_t block) const {
  const BlockIndex::Place place = index_->place(block);
  return segments_within(place.tensor, place.begin, place.end);
}

std::vector<Segment> PartBlocks::segments_within(std::size_t tensor, std::int64_t begin,
                                                 std::int64_t end) const {
  const auto [first, last] =
      std::equal_range(parts_.begin(), parts_.end(), Part{tensor, {}, {}},
                       [](const Part& a, const Part& b) { return a.tensor < b.tensor; });
  std::vector<Segment> segments;
  bool ascending = true;
  for (auto part = first; part != last; ++part) {
    for (const ElementRuns& run : part->runs) {
      if (run.global >= end) continue;
      std::int64_t i = 0;
      if (run.count > 1 && begin > run.global) i = (begin - run.global) / run.global_stride;
      for (; i < run.count; ++i) {
        const std::int64_t start = run.global + i * run.global_stride;
        if (start >= end) break;
        const std::int64_t from = std::max(start, begin), to = std::min(start + run.length, end);
        if (from >= to) continue;
        ascending = ascending && (segments.empty() || segments.back().global <= from);
        segments.push_back({from, run.local + i * run.local_stride + (from - start), to - from,
                            static_cast<std::size_t>(part - parts_.begin())});
      }
    }
  }
  if (!ascending) {
    std::stable_sort(segments.begin(), segments.end(),
                     [](const Segment& a, const Segment& b) { return a.global < b.global; });
  }
  return segments;
}

}  // namespace verne
