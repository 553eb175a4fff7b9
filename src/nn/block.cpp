#include "verne/nn/block.hpp"

#include "verne/ops/elementwise.hpp"
#include "verne/ops/run.hpp"

namespace verne {
Tensor settle(Step& step, const Stream& stream, const Tensor& out) {
  if (!stream.delta) return stream.sum;
  run(step.queue, Add{.y = out, .a = stream.sum, .b = stream.delta});
  return out;
}

void Block::forward(Step& step, Stream& stream, const RopeTable& rope, Saved& saved) const {
  attention.forward(step, stream, rope, saved.attention);
  mlp.forward(step, stream, saved.mlp);
}

void Block::backward(Step& step, const Tensor& dx, const RopeTable& rope, const Saved& saved) const {
  mlp.backward(step, dx, saved.mlp);
  attention.backward(step, dx, rope, saved.attention);
}

void Block::forward_keeping_nothing(Step& step, const Tensor& out, Stream stream,
                                    const RopeTable& rope) const {
  const ArenaScope scope(step.replay);
  Step passing = step.saving_into(step.replay);
  Saved saved;
  forward(passing, stream, rope, saved);
  settle(step, stream, out);
}

void Block::add_parameters(std::vector<Parameter*>& all) {
  attention.add_parameters(all);
  mlp.add_parameters(all);
}

Block make_block(const ModelConfig& config, const TensorParallel& tensor, std::int64_t layer, Keep keep) {
  return {.attention = make_attention(config, tensor, layer, keep),
          .mlp = make_mlp(config, tensor, layer, keep)};
}

void RecomputedBlock::forward(Step& step, Stream& stream, const RopeTable& rope, Saved& saved) const {
  const Shape shape = stream.sum.shape();
  saved.x = stream.delta ? settle(step, stream, step.save(step.dtype, shape)) : stream.sum;
  const Tensor out = step.save(step.dtype, shape);
  block.forward_keeping_nothing(step, out, {.sum = saved.x, .delta = {}, .buffer = stream.buffer}, rope);
  stream.sum = out;  // the next layer keeps this as its input, without a copy
  stream.delta = {};
}

void RecomputedBlock::backward(Step& step, const Tensor& dx, const RopeTable& rope,
                               const Saved& saved) const {
  const ArenaScope scratch(step.scratch), replay(step.replay);
  Step again = step.saving_into(step.replay);
  Stream stream{.sum = saved.x, .delta = {}, .buffer = step.temporary(step.dtype, saved.x.shape())};
  Block::Saved rerun;
  block.forward(again, stream, rope, rerun);
  block.backward(again, dx, rope, rerun);
}

}  // namespace verne
