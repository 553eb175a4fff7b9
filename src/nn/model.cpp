#include "verne/nn/model.hpp"

#include <type_traits>

namespace verne {
namespace {

bool layout_fits(const ModelConfig& config, int ranks) {
  return config.heads % ranks == 0 && config.intermediate_size % ranks == 0 &&
         (config.kv_heads % ranks == 0 || ranks % config.kv_heads == 0);
}

/// The block inside a layer, const as the layer is.
template <class Layer>
auto& block_of(Layer& layer) {
  using BlockType = std::conditional_t<std::is_const_v<Layer>, const Block, Block>;
  return std::visit(
      [](auto& alternative) -> BlockType& {
        if constexpr (std::is_same_v<std::decay_t<decltype(alternative)>, RecomputedBlock>) {
          return alternative.block;
        } else {
          return alternative;
        }
      },
      layer);
}

}  // namespace

void check_layout(const ModelConfig& config, int tensor_ranks) {
  if (layout_fits(config, tensor_ranks)) return;
  std::vector<int> fitting;
  for (int ranks = 1; ranks <= config.heads; ++ranks)
    if (layout_fits(config, ranks)) fitting.push_back(ranks);
  throw_user_error(
      "parallel.tensor = {}: it must divide num_attention_heads {} and intermediate_size {}, and "
      "num_key_value_heads {} must "
      "divide it or be divided by it; tensor sizes that fit this model: {}",
      tensor_ranks, config.heads, config.intermediate_size, config.kv_heads, fmt::join(fitting, ", "));
}

Model::Model(const ModelConfig& config, const TensorParallel& tensor, Recompute recompute) : config_(config) {
  check_layout(config, tensor.size());
  require_user(
      !config.qkv_bias && !config.o_bias && !config.mlp_bias,
      "this model has biases in its linear layers: such models are imported and exported, not trained "
      "or scored");
  embedding_ = make_embedding(config, tensor);
  const Keep keep = recompute == Recompute::selective ? Keep::rebuilt : Keep::stored;
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    Block block = make_block(config, tensor, layer, keep);
    if (recompute == Recompute::full)
      layers_.emplace_back(RecomputedBlock{std::move(block)});
    else
      layers_.emplace_back(std::move(block));
  }
  head_ = make_loss_head(config, tensor);
  if (!config.tied) projection_ = make_projection(config, tensor);
}

std::vector<Parameter*> Model::parameters() {
  std::vector<Parameter*> all = {&embedding_.weight};
  for (auto& layer : layers_)
    for (Parameter* p : block_of(layer).parameters()) all.push_back(p);
  for (Parameter* p : head_.norm.parameters()) all.push_back(p);
  if (projection_) all.push_back(&*projection_);
  return all;
}

void Model::forward(Step& step, const RopeTable& rope, Saved& saved) const {
  const ArenaScope scope(step.scratch);
  const Shape shape = {step.stream_tokens(), config_.hidden_size};
  Stream stream{
      .sum = step.save(step.dtype, shape), .delta = {}, .buffer = step.temporary(step.dtype, shape)};
  embedding_.forward(step, stream.sum);
  saved.layers.resize(layers_.size());
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    std::visit(
        [&](const auto& layer) {
          using LayerType = std::decay_t<decltype(layer)>;
          layer.forward(step, stream, rope, saved.layers[i].emplace<typename LayerType::Saved>());
        },
        layers_[i]);
  }
  head_.forward(step, projection(), stream, saved.head);
}

void Model::backward(Step& step, const RopeTable& rope, const Saved& saved) const {
  const ArenaScope scope(step.scratch);
  const Tensor dx = step.temporary(step.dtype, {step.stream_tokens(), config_.hidden_size});
  head_.backward(step, dx, saved.head);
  for (std::size_t i = layers_.size(); i-- > 0;) {
    std::visit(
        [&](const auto& layer) {
          using LayerType = std::decay_t<decltype(layer)>;
          layer.backward(step, dx, rope, std::get<typename LayerType::Saved>(saved.layers[i]));
        },
        layers_[i]);
  }
  embedding_.backward(step, dx);
}

Stream Model::run_layers_keeping_nothing(Step& step, const RopeTable& rope) const {
  const Shape shape = {step.stream_tokens(), config_.hidden_size};
  Stream stream{
      .sum = step.temporary(step.dtype, shape), .delta = {}, .buffer = step.temporary(step.dtype, shape)};
  embedding_.forward(step, stream.sum);
  for (const auto& layer : layers_) block_of(layer).forward_keeping_nothing(step, stream.sum, stream, rope);
  return stream;
}

void Model::evaluate(Step& step, const RopeTable& rope) const {
  const ArenaScope scope(step.scratch), replay(step.replay);
  Stream stream = run_layers_keeping_nothing(step, rope);
  step.saved = &step.replay;
  LossHead::Saved saved;
  head_.forward(step, projection(), stream, saved);
}

void Model::logits(Step& step, const RopeTable& rope, const Tensor& out) const {
  const ArenaScope scope(step.scratch), replay(step.replay);
  Stream stream = run_layers_keeping_nothing(step, rope);
  step.saved = &step.replay;
  head_.logits(step, projection(), stream, out);
}

}  // namespace verne
