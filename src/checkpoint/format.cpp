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

namespace {

std::vector<TensorInfo> in_order(ByGroup<std::vector<TensorInfo>> groups,
                                 std::array<std::size_t, kCheckpointGroups + 1>& first) {
  std::vector<TensorInfo> all;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    auto& tensors = groups[g];
    std::sort(tensors.begin(), tensors.end(),
              [](const TensorInfo& left, const TensorInfo& right) { return left.name < right.name; });
    const auto twice = std::adjacent_find(
        tensors.begin(), tensors.end(),
        [](const TensorInfo& left, const TensorInfo& right) { return left.name == right.name; });
    require(twice == tensors.end(), "tensor {} twice in {}", twice == tensors.end() ? "" : twice->name,
            path_of(kAllCheckpointGroups[g]));
    all.insert(all.end(), std::make_move_iterator(tensors.begin()), std::make_move_iterator(tensors.end()));
    first[g + 1] = all.size();
  }
  return all;
}

}  // namespace

FileTensors::FileTensors(ByGroup<std::vector<TensorInfo>> groups)
    : index_(in_order(std::move(groups), first_)) {}

std::span<const TensorInfo> FileTensors::tensors(CheckpointGroup group) const {
  const std::size_t g = index_of(group);
  return std::span(index_.tensors()).subspan(first_[g], first_[g + 1] - first_[g]);
}

FileTensors::Blocks FileTensors::blocks(CheckpointGroup group) const {
  const auto begin = [&](std::size_t tensor) {
    return tensor < index_.tensors().size() ? index_.number(tensor, 0) : index_.blocks();
  };
  return {begin(first_[index_of(group)]), begin(first_[index_of(group) + 1])};
}

}  // namespace verne
