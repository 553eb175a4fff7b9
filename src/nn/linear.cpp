#include "verne/nn/linear.hpp"

#include <cmath>

#include "verne/ops/bias.hpp"
#include "verne/ops/matmul.hpp"
#include "verne/ops/run.hpp"

namespace verne {
namespace {

/// dW (+)= dyᵀ·x
void multiply_gradient(Step& step, const Tensor& dweight, Accumulate accumulate, const Tensor& dy,
                       const Operand& x) {
  run(step.queue,
      Matmul{.d = dweight, .a = dy, .b = x, .transpose_a = Transpose::yes, .accumulate = accumulate});
}

Tensor bias_of(Step& step, const std::optional<Parameter>& bias) {
  return bias ? step.weight(*bias).data : Tensor{};
}

}  // namespace

Operand gather_stream(Step& step, const Operand& x) {
  if (!step.tensor.shards_sequence()) return x;
  const Tensor whole = step.temporary(x.data.dtype(), {step.tokens(), x.data.size(1)});
  step.tensor.communicator->all_gather(step.queue, whole, x.data).wait(step.queue);
  return whole;
}

void reduce_to_stream(Step& step, const Tensor& y, const Tensor& partial) {
  if (step.tensor.shards_sequence()) {
    step.tensor.communicator->reduce_scatter(step.queue, y, partial).wait(step.queue);
    return;
  }
  require(y.raw() == partial.raw(), "a whole stream is reduced in place");
  if (step.tensor.active()) step.tensor.communicator->all_reduce(step.queue, y, Reduce::sum).wait(step.queue);
}

void ColumnLinear::forward(Step& step, const Tensor& y, const Operand& x) const {
  const ArenaScope scope(step.scratch);
  multiply(step, y, gather_stream(step, x), all());
}

void ColumnLinear::multiply(Step& step, const Tensor& y, const Operand& gathered, Rows rows) const {
  const Tensor b = bias_of(step, bias);
  run(step.queue, Matmul{.d = y,
                         .a = gathered,
                         .b = step.weight(weight).data.rows(rows.first, rows.count),
                         .bias = b ? b.rows(rows.first, rows.count) : Tensor{},
                         .transpose_b = Transpose::yes});
}

ColumnLinear::Backward::Backward(Step& step, const ColumnLinear& linear, const Tensor& dx, const Operand& x)
    : step_(step), linear_(linear), dx_(dx), partial_(dx), x_(x) {
  const bool sharded = step.tensor.shards_sequence();
  if (linear.weight.trainable && sharded) {
    const Tensor whole = step.temporary(x.data.dtype(), {step.tokens(), x.data.size(1)});
    gathered_ = start_beside(step, *step.tensor.queue, [&](Queue& queue) {
      return step.tensor.communicator->all_gather(queue, whole, x.data);
    });
    x_ = whole;
  }
  if (sharded) partial_ = step.temporary(dx.dtype(), {step.tokens(), dx.size(1)});
}

void ColumnLinear::Backward::input(const Tensor& dy, Rows rows) {
  run(step_.queue, Matmul{.d = partial_,
                          .a = dy,
                          .b = step_.weight(linear_.weight).data.rows(rows.first, rows.count),
                          .accumulate = first_ ? Accumulate::no : Accumulate::yes});
  first_ = false;
}

void ColumnLinear::Backward::reduce() {
  if (!step_.tensor.active()) return;
  reduced_ = start_beside(step_, *step_.tensor.queue, [&](Queue& queue) {
    Communicator& ranks = *step_.tensor.communicator;
    return step_.tensor.shards_sequence() ? ranks.reduce_scatter(queue, dx_, partial_)
                                          : ranks.all_reduce(queue, dx_, Reduce::sum);
  });
}

void ColumnLinear::Backward::weight(const Tensor& dy, Rows rows) {
  if (linear_.weight.trainable) {
    gathered_.wait(step_.queue);
    if (!dweight_.tensor) dweight_ = step_.grad(linear_.weight);
    multiply_gradient(step_, dweight_.tensor.rows(rows.first, rows.count), dweight_.accumulate, dy, x_);
  }
  if (linear_.bias && linear_.bias->trainable) {
    if (!dbias_.tensor) dbias_ = step_.grad(*linear_.bias);
    run(step_.queue,
        BiasBackward{
            .dbias = dbias_.tensor.rows(rows.first, rows.count), .accumulate = dbias_.accumulate, .dy = dy});
  }
}

void ColumnLinear::Backward::finish() {
  step_.grad_done(linear_.weight);
  if (linear_.bias) step_.grad_done(*linear_.bias);
  reduced_.wait(step_.queue);
}

void ColumnLinear::backward(Step& step, const Tensor& dx, const Tensor& dy, const Operand& x) const {
  const ArenaScope scope(step.scratch);
  Backward backward(step, *this, dx, x);
  backward.input(dy, all());
  backward.reduce();
  backward.weight(dy, all());
  backward.finish();
}

void ColumnLinear::add_parameters(std::vector<Parameter*>& all) {
  all.push_back(&weight);
  if (bias) all.push_back(&*bias);
}

void RowLinear::forward(Step& step, const Tensor& y, const Operand& x) const {
  const ArenaScope scope(step.scratch);
  const Tensor partial =
      step.tensor.shards_sequence() ? step.temporary(y.dtype(), {step.tokens(), y.size(1)}) : y;
  // Among several ranks the bias is added once, behind the sum.
  const Tensor b = bias_of(step, bias);
  run(step.queue, Matmul{.d = partial,
                         .a = x,
                         .b = step.weight(weight),
                         .bias = step.tensor.active() ? Tensor{} : b,
                         .transpose_b = Transpose::yes});
  reduce_to_stream(step, y, partial);
  if (b && step.tensor.active()) run(step.queue, AddBias{.y = y, .bias = b});
}

void RowLinear::backward(Step& step, const Tensor& dx, const Tensor& dy, const Operand& x) const {
  const ArenaScope scope(step.scratch);
  if (bias && bias->trainable) {
    const Gradient dbias = step.grad(*bias);
    run(step.queue, BiasBackward{.dbias = dbias.tensor, .accumulate = dbias.accumulate, .dy = dy});
    step.grad_done(*bias);
  }
  const Tensor whole_dy = gather_stream(step, dy).data;
  run(step.queue, Matmul{.d = dx, .a = whole_dy, .b = step.weight(weight)});
  if (weight.trainable) {
    const Gradient dweight = step.grad(weight);
    multiply_gradient(step, dweight.tensor, dweight.accumulate, whole_dy, x);
  }
  step.grad_done(weight);
}

void RowLinear::add_parameters(std::vector<Parameter*>& all) {
  all.push_back(&weight);
  if (bias) all.push_back(&*bias);
}

RowLinear make_row_linear(const ModelConfig& config, const TensorParallel& tensor, const std::string& name,
                          std::int64_t inputs, bool with_bias) {
  const std::int64_t hidden = config.hidden_size, local = inputs / tensor.size();
  RowLinear linear;
  linear.weight.name = name + ".weight";
  linear.weight.shape = {hidden, local};
  linear.weight.slices = {
      {.name = linear.weight.name,
       .shape = {hidden, inputs},
       .runs = column_block(hidden, inputs, tensor.rank() * local, local),
       .init_deviation = config.initializer_range / std::sqrt(2.0 * static_cast<double>(config.layers))}};
  if (!with_bias) return linear;
  linear.bias.emplace();
  linear.bias->name = name + ".bias";
  linear.bias->shape = {hidden};
  linear.bias->slices = {{.name = linear.bias->name, .shape = {hidden}, .runs = row_block(0, 1, hidden, 0)}};
  linear.bias->placement.copies = tensor.stream_copies();
  return linear;
}

}  // namespace verne
