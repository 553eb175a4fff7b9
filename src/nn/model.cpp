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

/// The stream behind a chunk, settled, into `out`.
void hand_on(Step& step, const Stream& stream, const Tensor& out) {
  if (settle(step, stream, out).raw() != out.raw()) step.queue.copy(out, stream.sum);
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

Model::Model(const ModelConfig& config, const TensorParallel& tensor, const Chunk& chunk, Recompute recompute)
    : config_(config), chunk_(chunk) {
  check_layout(config, tensor.size());
  const bool tied_here = config.tied && chunk.embedding && chunk.head;
  const bool tied_apart = config.tied && !tied_here;
  if (chunk.embedding) {
    embedding_ = make_embedding(config, tensor);
    embedding_.weight.uses = tied_here ? 2 : 1;
    if (tied_apart) embedding_.weight.placement.copies = Placement::Copies::stages;
  }
  const Keep keep = recompute == Recompute::selective ? Keep::rebuilt : Keep::stored;
  for (std::int64_t layer = chunk.first_layer; layer < chunk.last_layer; ++layer) {
    Block block = make_block(config, tensor, layer, keep);
    if (recompute == Recompute::full)
      layers_.emplace_back(RecomputedBlock{std::move(block)});
    else
      layers_.emplace_back(std::move(block));
  }
  if (!chunk.head) return;
  head_ = make_loss_head(config, tensor);
  if (tied_here) return;
  projection_ = vocabulary_parameter(config, tensor, config.tied ? kEmbeddingName : kHeadName);
  if (tied_apart) projection_->placement.copies = Placement::Copies::stages;
}

std::vector<Parameter*> Model::parameters() {
  std::vector<Parameter*> all;
  constexpr std::int64_t kLayerOrder = 1000;  // more than a layer has
  const auto number = [&](std::size_t first, std::int64_t order) {
    for (std::size_t i = first; i < all.size(); ++i) all[i]->order = order++;
  };
  if (chunk_.embedding) all.push_back(&embedding_.weight);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const std::size_t first = all.size();
    block_of(layers_[i]).add_parameters(all);
    number(first, (chunk_.first_layer + static_cast<std::int64_t>(i) + 1) * kLayerOrder);
  }
  const std::size_t first = all.size();
  if (chunk_.head) head_.norm.add_parameters(all);
  if (projection_) all.push_back(&*projection_);
  number(first, (config_.layers + 1) * kLayerOrder);
  return all;
}

void Model::forward(Step& step, const RopeTable& rope, const Tensor& in, const Tensor& out,
                    Saved& saved) const {
  const ArenaScope scope(step.scratch);
  const Shape shape = {step.stream_tokens(), config_.hidden_size};
  Stream stream{.sum = chunk_.embedding ? step.save(step.dtype, shape) : in,
                .delta = {},
                .buffer = step.temporary(step.dtype, shape)};
  if (chunk_.embedding) embedding_.forward(step, stream.sum);
  saved.layers.resize(layers_.size());
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    std::visit(
        [&](const auto& layer) {
          using LayerType = std::decay_t<decltype(layer)>;
          layer.forward(step, stream, rope, saved.layers[i].emplace<typename LayerType::Saved>());
        },
        layers_[i]);
  }
  if (chunk_.head) {
    head_.forward(step, projection(), stream, saved.head);
  } else {
    hand_on(step, stream, out);
  }
}

void Model::backward(Step& step, const RopeTable& rope, const Tensor& dx, const Saved& saved) const {
  const ArenaScope scope(step.scratch);
  if (chunk_.head) head_.backward(step, dx, saved.head);
  for (std::size_t i = layers_.size(); i-- > 0;) {
    std::visit(
        [&](const auto& layer) {
          using LayerType = std::decay_t<decltype(layer)>;
          layer.backward(step, dx, rope, std::get<typename LayerType::Saved>(saved.layers[i]));
        },
        layers_[i]);
  }
  if (chunk_.embedding) embedding_.backward(step, dx);
}

Stream Model::run_layers_keeping_nothing(Step& step, const RopeTable& rope, const Tensor& in) const {
  const Shape shape = {step.stream_tokens(), config_.hidden_size};
  Stream stream{.sum = chunk_.embedding ? step.temporary(step.dtype, shape) : in,
                .delta = {},
                .buffer = step.temporary(step.dtype, shape)};
  if (chunk_.embedding) embedding_.forward(step, stream.sum);
  for (const auto& layer : layers_) block_of(layer).forward_keeping_nothing(step, stream.sum, stream, rope);
  return stream;
}

void Model::evaluate(Step& step, const RopeTable& rope, const Tensor& in, const Tensor& out) const {
  const ArenaScope scope(step.scratch), replay(step.replay);
  Stream stream = run_layers_keeping_nothing(step, rope, in);
  if (chunk_.head) {
    Step passing = step.saving_into(step.replay);
    head_.evaluate(passing, projection(), stream);
  } else {
    hand_on(step, stream, out);
  }
}

void Model::logits(Step& step, const RopeTable& rope, const Tensor& in, const Tensor& out) const {
  require(chunk_.head, "logits of a chunk without a head");
  const ArenaScope scope(step.scratch), replay(step.replay);
  Stream stream = run_layers_keeping_nothing(step, rope, in);
  Step passing = step.saving_into(step.replay);
  head_.logits(passing, projection(), stream, out);
}

}  // namespace verne
