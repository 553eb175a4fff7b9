#include "verne/checkpoint/format.hpp"

#include <algorithm>

#include "verne/base/error.hpp"

namespace verne {

std::int64_t CheckpointState::step() const {
  return values.value("step", std::int64_t{0});
}

std::string_view path_of(CheckpointGroup group) {
  switch (group) {
    case CheckpointGroup::model:
      return "/model";
    case CheckpointGroup::master:
      return "/optimizer/master";
    case CheckpointGroup::exp_avg:
      return "/optimizer/exp_avg";
    case CheckpointGroup::exp_avg_sq:
      return "/optimizer/exp_avg_sq";
  }
  throw InternalError("unknown checkpoint group");
}

std::string checksums_path_of(CheckpointGroup group) {
  return "/checksums" + std::string(path_of(group));
}

ChecksumIndex::ChecksumIndex(std::vector<TensorInfo> unsorted) : tensors(std::move(unsorted)) {
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorInfo& left, const TensorInfo& right) { return left.name < right.name; });
  for (const TensorInfo& tensor : tensors) {
    const bool is_new = position.emplace(tensor.name, first.size()).second;
    require(is_new, "tensor {} twice in one group", tensor.name);
    first.push_back(blocks);
    blocks += block_count(tensor);
  }
}

}  // namespace verne
