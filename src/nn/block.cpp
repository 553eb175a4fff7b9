#include "verne/nn/block.hpp"

#include <utility>

#include "verne/ops/elementwise.hpp"
#include "verne/ops/run.hpp"

namespace verne {
namespace {

/// While it lives, what layers save goes to the replay arena, which is given back at the end.
class Replay {
 public:
  explicit Replay(Step& step)
      : step_(step), saved_(std::exchange(step.saved, &step.replay)), scope_(step.replay) {}
  ~Replay() { step_.saved = saved_; }
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

 private:
  Step& step_;
  Arena* saved_;
  ArenaScope scope_;
};

/// The stream as one tensor: adds a pending delta into `out`, or gives the sum itself.
Tensor settle(Step& step, const Stream& stream, const Tensor& out) {
  if (!stream.delta) return stream.sum;
  run(step.queue, Add{.y = out, .a = stream.sum, .b = stream.delta});
  return out;
}

}  // namespace

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
  const Replay replay(step);
  Saved saved;
  forward(step, stream, rope, saved);
  settle(step, stream, out);
}

std::vector<Parameter*> Block::parameters() {
  std::vector<Parameter*> all = attention.parameters();
  for (Parameter* p : mlp.parameters()) all.push_back(p);
  return all;
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
  const ArenaScope scratch(step.scratch);
  const Replay replay(step);
  Stream stream{.sum = saved.x, .delta = {}, .buffer = step.temporary(step.dtype, saved.x.shape())};
  Block::Saved rerun;
  block.forward(step, stream, rope, rerun);
  block.backward(step, dx, rope, rerun);
}

}  // namespace verne
