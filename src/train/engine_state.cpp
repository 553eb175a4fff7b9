#include "verne/train/engine_state.hpp"

#include "verne/io/load.hpp"
#include "verne/nn/model_tensors.hpp"

namespace verne {
namespace {

using Share = ParameterStore::Share;
using Which = ParameterStore::Which;

struct StateGroup {
  CheckpointGroup group;
  OptimizerState state;
  GroupContent CheckpointContent::*content;
};
constexpr std::array kStateGroups{
    StateGroup{CheckpointGroup::master, OptimizerState::master, &CheckpointContent::master},
    StateGroup{CheckpointGroup::exp_avg, OptimizerState::exp_avg, &CheckpointContent::exp_avg},
    StateGroup{CheckpointGroup::exp_avg_sq, OptimizerState::exp_avg_sq, &CheckpointContent::exp_avg_sq}};

std::vector<TensorInfo> tensors_of(const ModelHost& host, DType dtype, Which which) {
  std::vector<TensorInfo> tensors;
  for (const ModelTensor& tensor : model_tensors(host.config())) {
    const bool trains = !host.options().trains || host.options().trains(tensor.name);
    if (which == Which::all || trains == (which == Which::trained))
      tensors.push_back({tensor.name, dtype, tensor.shape});
  }
  return tensors;
}

}  // namespace

CheckpointContent engine_state(Engine& engine, CheckpointKind kind) {
  ModelHost& host = engine.host();
  const DType dtype = host.options().dtype;
  CheckpointContent content;
  content.model = {tensors_of(host, dtype, Which::all), host.weight_parts(dtype, Share::counted)};
  if (kind == CheckpointKind::weights_only) return content;
  for (const StateGroup& group : kStateGroups)
    content.*group.content = {tensors_of(host, DType::f32, Which::trained),
                              engine.optimizer_parts(group.state, Share::counted)};
  return content;
}

void restore_engine(Engine& engine, const CheckpointReader& reader, const HostGroup& world) {
  ModelHost& host = engine.host();
  std::vector<PartsToLoad> loads;
  for (const StateGroup& group : kStateGroups)
    loads.push_back({reader.tensors(group.group), engine.optimizer_parts(group.state, Share::owned)});
  if (!tensors_of(host, DType::f32, Which::frozen).empty())
    loads.push_back(
        {reader.tensors(CheckpointGroup::model), host.loadable_parts(host.options().dtype, Which::frozen)});
  load_parts(world, engine.runtime().compute(), loads);
  engine.state_restored();
}

}  // namespace verne
