#include "verne/nn/loss_head.hpp"

#include <algorithm>

#include "verne/nn/linear.hpp"
#include "verne/ops/cross_entropy.hpp"
#include "verne/ops/matmul.hpp"
#include "verne/ops/reduce.hpp"
#include "verne/ops/run.hpp"

namespace verne {
namespace {

/// Tokens whose logits are in memory at once: at most 2^28 logits, at least 128 tokens.
std::int64_t slice_tokens(std::int64_t columns) {
  return std::max<std::int64_t>(128, (std::int64_t{1} << 28) / columns / 128 * 128);
}

/// Statistics of this rank's block, gathered from all tensor ranks and combined.
void cross_entropy_forward(Step& step, const VocabularyBlock& block, const Tensor& logits,
                           const Tensor& targets, const Tensor& log_probability, const Tensor& log_sum_exp) {
  const ArenaScope scope(step.scratch);
  const std::int64_t tokens = logits.size(0);
  const Tensor all = step.temporary(DType::f32, {step.tensor.size(), tokens, 3});
  const Tensor own = all.rows(step.tensor.rank(), 1).view({tokens, 3});
  run(step.queue, CrossEntropyStatistics{.stats = own,
                                         .logits = logits,
                                         .targets = targets,
                                         .first_column = block.first,
                                         .valid_columns = block.valid});
  if (step.tensor.active()) step.tensor.communicator->all_gather(step.queue, all, own).wait(step.queue);
  run(step.queue,
      CrossEntropyCombine{.log_probability = log_probability, .log_sum_exp = log_sum_exp, .stats = all});
}

}  // namespace

void LossHead::run_slices(Step& step, const Parameter& projection, const Operand& x,
                          Gradients* gradients) const {
  const std::int64_t tokens = step.tokens();
  const Operand weight = step.weight(projection);
  const std::int64_t most = std::min(tokens, slice_tokens(block.rows));
  const Tensor logits_memory = step.temporary(step.dtype, {most, block.rows});
  const Tensor log_sum_exp_memory = step.temporary(DType::f32, {most});
  for (std::int64_t first = 0; first < tokens; first += most) {
    const std::int64_t count = std::min(most, tokens - first);
    const Tensor rows = x.data.rows(first, count), targets = step.batch.targets.rows(first, count);
    const Tensor mask = step.batch.loss_mask.rows(first, count);
    const Tensor log_probability = step.batch.log_probability.rows(first, count);
    const Tensor logits = logits_memory.rows(0, count), log_sum_exp = log_sum_exp_memory.rows(0, count);
    run(step.queue, Matmul{.d = logits, .a = rows, .b = weight, .transpose_b = Transpose::yes});
    cross_entropy_forward(step, block, logits, targets, log_probability, log_sum_exp);
    run(step.queue,
        MaskedSum{.total = step.batch.loss_sum, .values = log_probability, .mask = mask, .factor = -1});
    if (!gradients) continue;
    run(step.queue, CrossEntropyBackward{.dlogits = logits,
                                         .logits = logits,
                                         .targets = targets,
                                         .log_sum_exp = log_sum_exp,
                                         .loss_mask = mask,
                                         .scale = step.batch.loss_scale,
                                         .first_column = block.first,
                                         .valid_columns = block.valid});
    run(step.queue, Matmul{.d = gradients->dx.rows(first, count), .a = logits, .b = weight});
    if (!projection.trainable) continue;
    run(step.queue, Matmul{.d = gradients->dweight.tensor,
                           .a = logits,
                           .b = rows,
                           .transpose_a = Transpose::yes,
                           .accumulate = gradients->dweight.accumulate});
    gradients->dweight.accumulate = Accumulate::yes;
  }
}

void LossHead::forward(Step& step, const Parameter& projection, Stream& stream, Saved& saved) const {
  const Shape shape = stream.sum.shape();
  saved.dnormalised = step.save(step.dtype, shape);
  const ArenaScope scope(step.scratch);
  const Operand normalised = step.temporary(step.dtype, shape);
  norm.forward(step, normalised, stream, saved.norm);
  Gradients gradients{.dx = step.tensor.shards_sequence()
                                ? step.temporary(step.dtype, {step.tokens(), shape[1]})
                                : saved.dnormalised,
                      .dweight = {}};
  if (projection.trainable) gradients.dweight = step.grad(projection);
  run_slices(step, projection, gather_stream(step, normalised), &gradients);
  step.grad_done(projection);
  reduce_to_stream(step, saved.dnormalised, gradients.dx);
}

void LossHead::backward(Step& step, const Tensor& dx, const Saved& saved) const {
  norm.backward(step, dx, saved.dnormalised, saved.norm, Norm::Branch::begins);
}

void LossHead::evaluate(Step& step, const Parameter& projection, Stream& stream) const {
  const ArenaScope scope(step.scratch);
  const Operand normalised = step.temporary(step.dtype, stream.sum.shape());
  Norm::Saved saved;
  norm.forward(step, normalised, stream, saved);
  run_slices(step, projection, gather_stream(step, normalised), nullptr);
}

void LossHead::logits(Step& step, const Parameter& projection, Stream& stream, const Tensor& out) const {
  const ArenaScope scope(step.scratch);
  const Operand normalised = step.temporary(step.dtype, stream.sum.shape());
  Norm::Saved saved;
  norm.forward(step, normalised, stream, saved);
  run(step.queue, Matmul{.d = out,
                         .a = gather_stream(step, normalised),
                         .b = step.weight(projection),
                         .transpose_b = Transpose::yes});
}

LossHead make_loss_head(const ModelConfig& config, const TensorParallel& tensor) {
  return {.norm = make_norm(config, tensor, "model.norm"),
          .block = vocabulary_block(config.vocab_size, tensor.rank(), tensor.size())};
}

}  // namespace verne
