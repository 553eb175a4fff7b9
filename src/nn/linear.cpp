#include "verne/nn/linear.hpp"

#include "verne/ops/matmul.hpp"
#include "verne/ops/run.hpp"

namespace verne {
namespace {

/// Starts a collective on the tensor queue after what the compute queue was given so far.
template <class Collective>
Pending start(Step& step, Collective&& collective) {
  if (step.tensor.queue != &step.queue) step.tensor.queue->wait(step.queue.record());
  return collective(*step.tensor.queue);
}

void multiply_gradient(Step& step, const Parameter& weight, const Tensor& dy, const Tensor& x) {
  if (!weight.trainable) return;
  const Gradient gradient = step.grad(weight);
  // dW = dyᵀ·x
  run(step.queue, Matmul{.d = gradient.tensor,
                         .a = dy,
                         .b = x,
                         .transpose_a = Transpose::yes,
                         .accumulate = gradient.accumulate});
  step.grad_done(weight);
}

}  // namespace

Tensor gather_stream(Step& step, const Tensor& x) {
  if (!step.tensor.shards_sequence()) return x;
  const Tensor whole = step.temporary(x.dtype(), {step.tokens(), x.size(1)});
  step.tensor.communicator->all_gather(step.queue, whole, x).wait(step.queue);
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

void ColumnLinear::forward(Step& step, const Tensor& y, const Tensor& x) const {
  const ArenaScope scope(step.scratch);
  run(step.queue,
      Matmul{.d = y, .a = gather_stream(step, x), .b = step.weight(weight), .transpose_b = Transpose::yes});
}

void ColumnLinear::backward(Step& step, const Tensor& dx, const Tensor& dy, const Tensor& x) const {
  const ArenaScope scope(step.scratch);
  if (!step.tensor.active()) {
    run(step.queue, Matmul{.d = dx, .a = dy, .b = step.weight(weight)});
    multiply_gradient(step, weight, dy, x);
    return;
  }
  const bool sharded = step.tensor.shards_sequence();
  const std::int64_t width = x.size(1);
  Tensor whole_x = x;
  Pending gathered, reduced;
  if (sharded && weight.trainable) {
    whole_x = step.temporary(x.dtype(), {step.tokens(), width});
    gathered =
        start(step, [&](Queue& queue) { return step.tensor.communicator->all_gather(queue, whole_x, x); });
  }
  const Tensor partial = sharded ? step.temporary(dx.dtype(), {step.tokens(), width}) : dx;
  run(step.queue, Matmul{.d = partial, .a = dy, .b = step.weight(weight)});
  reduced = start(step, [&](Queue& queue) {
    return sharded ? step.tensor.communicator->reduce_scatter(queue, dx, partial)
                   : step.tensor.communicator->all_reduce(queue, dx, Reduce::sum);
  });
  gathered.wait(step.queue);
  multiply_gradient(step, weight, dy, whole_x);
  reduced.wait(step.queue);
}

void RowLinear::forward(Step& step, const Tensor& y, const Tensor& x) const {
  const ArenaScope scope(step.scratch);
  const Tensor partial =
      step.tensor.shards_sequence() ? step.temporary(y.dtype(), {step.tokens(), y.size(1)}) : y;
  run(step.queue, Matmul{.d = partial, .a = x, .b = step.weight(weight), .transpose_b = Transpose::yes});
  reduce_to_stream(step, y, partial);
}

void RowLinear::backward(Step& step, const Tensor& dx, const Tensor& dy, const Tensor& x) const {
  const ArenaScope scope(step.scratch);
  const Tensor whole_dy = gather_stream(step, dy);
  run(step.queue, Matmul{.d = dx, .a = whole_dy, .b = step.weight(weight)});
  multiply_gradient(step, weight, whole_dy, x);
}

}  // namespace verne
