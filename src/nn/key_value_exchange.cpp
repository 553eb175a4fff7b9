#include "verne/nn/key_value_exchange.hpp"

#include "verne/nn/linear.hpp"
#include "verne/ops/elementwise.hpp"
#include "verne/ops/embedding.hpp"
#include "verne/ops/run.hpp"

namespace verne {
namespace {

std::int64_t width(const Tensor& heads) {
  return heads.size(1) * heads.size(2);
}

/// Among so many ranks a sum in bf16 would lose what the kernels kept.
constexpr int kWideSumRanks = 4;

/// y[t] = x[index[t]]: an embedding whose table is x.
void take_rows(Step& step, const Tensor& y, const Tensor& x, const Tensor& index) {
  run(step.queue, EmbeddingForward{.y = y, .weight = x, .tokens = index});
}

}  // namespace

KeysValues halves_of(const Tensor& packed, const KeysValues& like) {
  const std::int64_t rows = packed.size(0), k_width = width(like.k), v_width = width(like.v);
  return {packed.columns(0, k_width).view({rows, like.k.size(1), like.k.size(2)}),
          packed.columns(k_width, v_width).view({rows, like.v.size(1), like.v.size(2)})};
}

KeyValueGather::KeyValueGather(Step& step, const KeysValues& own) : own_(own) {
  if (!step.context.active()) return;
  const std::int64_t columns = width(own.k) + width(own.v);
  packed_ = step.temporary(step.dtype, {step.tokens(), columns});
  in_rank_order_ = step.temporary(step.dtype, {step.batch.key_count, columns});
}

void KeyValueGather::start(Step& step) {
  if (!step.context.active()) return;
  const KeysValues halves = halves_of(packed_, own_);
  run(step.queue, Cast{.y = halves.k, .x = own_.k});
  run(step.queue, Cast{.y = halves.v, .x = own_.v});
  pending_ = start_beside(step, *step.context.queue, [&](Queue& queue) {
    return step.context.communicator->all_gather(queue, in_rank_order_, packed_);
  });
}

KeysValues KeyValueGather::ready(Step& step) {
  if (!step.context.active()) return own_;
  const Tensor keys = step.temporary(step.dtype, in_rank_order_.shape());
  pending_.wait(step.queue);
  take_rows(step, keys, in_rank_order_, step.context.from_ranks);
  return halves_of(keys, own_);
}

KeyValueScatter::KeyValueScatter(Step& step, const Tensor& gradient) {
  const bool wide = gradient.dtype() == DType::bf16 && step.context.size() >= kWideSumRanks;
  const DType type = wide ? DType::f32 : gradient.dtype();
  const Shape shape = gradient.shape();
  own_ = step.temporary(type, {step.tokens(), shape[1]});
  in_rank_order_ = step.temporary(type, shape);
  Tensor summands = gradient;
  if (wide) {
    summands = step.temporary(type, shape);
    run(step.queue, Cast{.y = summands, .x = gradient});
  }
  take_rows(step, in_rank_order_, summands, step.context.from_rows);
  pending_ = start_beside(step, *step.context.queue, [&](Queue& queue) {
    return step.context.communicator->reduce_scatter(queue, own_, in_rank_order_);
  });
}

void KeyValueScatter::ready(Step& step, const KeysValues& own) {
  pending_.wait(step.queue);
  const KeysValues halves = halves_of(own_, own);
  run(step.queue, Cast{.y = own.k, .x = halves.k});
  run(step.queue, Cast{.y = own.v, .x = halves.v});
}

}  // namespace verne
