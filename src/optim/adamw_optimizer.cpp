#include "verne/optim/adamw_optimizer.hpp"

#include <algorithm>
#include <cmath>

#include "verne/ops/elementwise.hpp"
#include "verne/ops/run.hpp"

namespace verne {

AdamWOptimizer::AdamWOptimizer(Queue& queue, const ParameterStore& store, const AdamWSettings& settings)
    : store_(store), settings_(settings), owned_begin_(store.buckets().size()) {
  for (std::size_t p = 0; p < store.pools().size(); ++p) {
    if (!store.pools()[p].trainable) continue;
    PoolState state{.pool = static_cast<int>(p), .master = {}, .exp_avg = {}, .exp_avg_sq = {}, .tiles = {}};
    std::vector<OptimizerSegment> segments;
    for (std::size_t b = 0; b < store.buckets().size(); ++b) {
      const Bucket& bucket = store.buckets()[b];
      if (bucket.pool != state.pool) continue;
      owned_begin_[b] = state.elements;
      for (const OptimizerSegment& segment : segments_of(bucket, state.elements)) segments.push_back(segment);
      state.elements += store.owned(bucket).count;
    }
    // What no parameter covers, alignment gaps and padded rows, is in nobody's checkpoint: it starts as zero
    // and must not become anything else.
    const auto zeros = [&](DType type) {
      Buffer buffer(queue, type, {state.elements}, MemoryKind::optimizer);
      queue.zero(buffer.tensor());
      return buffer;
    };
    if (store.pools()[p].dtype != DType::f32) state.master = zeros(DType::f32);
    state.exp_avg = zeros(DType::f32);
    state.exp_avg_sq = zeros(DType::f32);
    const std::vector<std::int64_t> tiles = optimizer_tiles(segments);
    state.tiles =
        Buffer(queue, DType::i64, {std::ssize(tiles) / kTileFields, kTileFields}, MemoryKind::optimizer);
    queue.upload(state.tiles.tensor(), std::span<const std::int64_t>(tiles));
    states_.push_back(std::move(state));
  }
}

std::vector<OptimizerSegment> AdamWOptimizer::segments_of(const Bucket& bucket,
                                                          std::int64_t owned_begin) const {
  const PoolRange owned = store_.owned(bucket);
  std::vector<OptimizerSegment> segments;
  const auto add = [&](std::int64_t begin, std::int64_t end, bool decays, bool counted) {
    begin = std::max(begin, owned.begin);
    end = std::min(end, owned.end());
    if (begin < end)
      segments.push_back({.flat = begin,
                          .owned = owned_begin + begin - owned.begin,
                          .count = end - begin,
                          .decays = decays,
                          .counted = counted});
  };
  for (const int index : bucket.parameters) {
    const Parameter& p = store_.parameter(index);
    const std::int64_t begin = store_.offset(p), copied = begin + p.first_copied(),
                       end = begin + p.shape.count();
    add(begin, copied, p.decays(), true);
    add(copied, end, p.decays(), store_.place().first_copy.of(p.placement.copies));
  }
  return segments;
}

void AdamWOptimizer::initialize(Queue& queue) {
  for (const PoolState& state : states_) {
    queue.zero(state.exp_avg.tensor());
    queue.zero(state.exp_avg_sq.tensor());
    if (state.master.bytes() == 0) continue;
    for (std::size_t b = 0; b < store_.buckets().size(); ++b) {
      const Bucket& bucket = store_.buckets()[b];
      if (bucket.pool != state.pool) continue;
      const PoolRange owned = store_.owned(bucket);
      run(queue, Cast{.y = state.master.tensor().rows(owned_begin_[b], owned.count),
                      .x = store_.weights(bucket, owned)});
    }
  }
}

void AdamWOptimizer::fill_scalars(std::span<float> scalars, std::int64_t step, double learning_rate) const {
  require(scalars.size() == kHostStepScalars, "{} scalars of a step", scalars.size());
  const auto set = [&](StepScalar which, double value) {
    scalars[static_cast<std::size_t>(which)] = static_cast<float>(value);
  };
  set(StepScalar::learning_rate, learning_rate);
  set(StepScalar::bias_correction1, 1 - std::pow(settings_.beta1, static_cast<double>(step)));
  set(StepScalar::bias_correction2, 1 - std::pow(settings_.beta2, static_cast<double>(step)));
}

void AdamWOptimizer::add_sum_of_squares(Queue& queue, const Tensor& total) const {
  for (const PoolState& state : states_)
    run(queue, GradientSquares{
                   .total = total, .grad = pool(state).gradients.tensor(), .tiles = state.tiles.tensor()});
}

void AdamWOptimizer::set_clip(Queue& queue, const Tensor& scalars, const Tensor& sum_of_squares,
                              const Tensor& loss) const {
  run(queue, ClipFactor{.scalars = scalars,
                        .sum_of_squares = sum_of_squares,
                        .loss = loss,
                        .max_norm = settings_.clip_grad});
}

void AdamWOptimizer::update(Queue& queue, const Tensor& scalars) const {
  for (const PoolState& state : states_)
    run(queue, AdamW{.weight = pool(state).weights.tensor(),
                     .master = state.master.tensor(),
                     .exp_avg = state.exp_avg.tensor(),
                     .exp_avg_sq = state.exp_avg_sq.tensor(),
                     .grad = pool(state).gradients.tensor(),
                     .scalars = scalars,
                     .tiles = state.tiles.tensor(),
                     .beta1 = settings_.beta1,
                     .beta2 = settings_.beta2,
                     .eps = settings_.eps,
                     .weight_decay = settings_.weight_decay});
}

void AdamWOptimizer::weights_from_masters(Queue& queue) const {
  for (const PoolState& state : states_) {
    if (state.master.bytes() == 0) continue;
    for (std::size_t b = 0; b < store_.buckets().size(); ++b) {
      const Bucket& bucket = store_.buckets()[b];
      if (bucket.pool != state.pool) continue;
      const PoolRange owned = store_.owned(bucket);
      run(queue, Cast{.y = store_.weights(bucket, owned),
                      .x = state.master.tensor().rows(owned_begin_[b], owned.count)});
    }
  }
}

std::vector<TensorPart> AdamWOptimizer::parts(OptimizerState which, ParameterStore::Share share) const {
  require(share != ParameterStore::Share::held, "optimizer state of other ranks is not here");
  std::vector<TensorPart> parts;
  for (const Parameter* p : store_.parameters()) {
    if (!p->trainable) continue;
    const std::size_t b = store_.bucket_of(*p);
    const Bucket& bucket = store_.buckets()[b];
    const PoolState& state = *std::find_if(states_.begin(), states_.end(),
                                           [&](const PoolState& s) { return s.pool == bucket.pool; });
    ParameterStore::View view{.shift = owned_begin_[b] - store_.owned(bucket).begin};
    switch (which) {
      case OptimizerState::master:
        if (state.master.bytes() > 0) {
          view.local = state.master.tensor();
        } else {
          view = {.local = pool(state).weights.tensor()};
        }
        break;
      case OptimizerState::exp_avg:
        view.local = state.exp_avg.tensor();
        break;
      case OptimizerState::exp_avg_sq:
        view.local = state.exp_avg_sq.tensor();
        break;
    }
    store_.add_parts(parts, *p, view, DType::f32, share);
  }
  return parts;
}

}  // namespace verne
