#include "verne/optim/adamw_optimizer.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "verne/ops/elementwise.hpp"
#include "verne/ops/reduce.hpp"
#include "verne/ops/run.hpp"

namespace verne {

AdamWOptimizer::AdamWOptimizer(Queue& queue, const ParameterStore& store, const AdamWSettings& settings,
                               const Place& place)
    : store_(store), settings_(settings), place_(place) {
  for (const Bucket& bucket : store.buckets()) {
    owned_begin_.push_back(owned_elements_);
    add_segments(bucket, owned_elements_);
    owned_elements_ += bucket.size / place.data_ranks;
  }
  if (store.dtype() != DType::f32)
    master_ = Buffer(queue, DType::f32, {owned_elements_}, MemoryKind::optimizer);
  exp_avg_ = Buffer(queue, DType::f32, {owned_elements_}, MemoryKind::optimizer);
  exp_avg_sq_ = Buffer(queue, DType::f32, {owned_elements_}, MemoryKind::optimizer);
  scalars_ = Buffer(queue, DType::f32, {kStepScalars}, MemoryKind::optimizer);
}

void AdamWOptimizer::add_segments(const Bucket& bucket, std::int64_t owned_begin) {
  const std::int64_t block = bucket.size / place_.data_ranks;
  const std::int64_t first = bucket.begin + place_.data_rank * block, last = first + block;
  const auto add = [&](std::int64_t begin, std::int64_t end, bool decays, bool counted) {
    begin = std::max(begin, first);
    end = std::min(end, last);
    if (begin >= end) return;
    const std::int64_t owned = owned_begin + begin - first;
    if (!segments_.empty()) {  // the gap between two parameters is zero: it may join either
      Segment& previous = segments_.back();
      if (previous.decays == decays && previous.counted == counted &&
          previous.flat - previous.owned == begin - owned) {
        previous.count = begin + (end - begin) - previous.flat;
        return;
      }
    }
    segments_.push_back(
        {.flat = begin, .owned = owned, .count = end - begin, .decays = decays, .counted = counted});
  };
  for (int index : bucket.parameters) {
    const Parameter& p = *store_.parameters()[static_cast<std::size_t>(index)];
    if (!p.trainable) continue;
    const std::int64_t begin = store_.offset(p), end = begin + p.shape.count();
    if (p.tensor_gradient == TensorGradient::kv_replicas) {
      const std::int64_t replicated = begin + p.replicated_row * p.shape[1];
      add(begin, replicated, p.decays(), true);
      add(replicated, end, p.decays(), place_.tensor_rank % place_.kv_replicas == 0);
    } else {
      add(begin, end, p.decays(), !p.held_by_all_tensor_ranks || place_.tensor_rank == 0);
    }
  }
}

void AdamWOptimizer::initialize(Queue& queue) {
  queue.zero(exp_avg_.tensor());
  queue.zero(exp_avg_sq_.tensor());
  if (master_.bytes() == 0) return;
  for (std::size_t b = 0; b < store_.buckets().size(); ++b) {
    const Bucket& bucket = store_.buckets()[b];
    const std::int64_t block = bucket.size / place_.data_ranks;
    run(queue, Cast{.y = master_.tensor().rows(owned_begin_[b], block),
                    .x = store_.weights(bucket).rows(place_.data_rank * block, block)});
  }
}

void AdamWOptimizer::begin_step(Queue& queue, std::int64_t step, double learning_rate) {
  std::array<float, kStepScalars> values{};
  const auto set = [&](StepScalar which, double value) {
    values[static_cast<std::size_t>(which)] = static_cast<float>(value);
  };
  set(StepScalar::learning_rate, learning_rate);
  set(StepScalar::bias_correction1, 1 - std::pow(settings_.beta1, static_cast<double>(step)));
  set(StepScalar::bias_correction2, 1 - std::pow(settings_.beta2, static_cast<double>(step)));
  set(StepScalar::clip_factor, 1);
  queue.upload(scalars_.tensor(), std::as_bytes(std::span(values)));
}

void AdamWOptimizer::add_sum_of_squares(Queue& queue, const Tensor& total) const {
  for (const Segment& s : segments_)
    if (s.counted)
      run(queue, SumOfSquares{.total = total, .values = store_.flat_gradients().rows(s.flat, s.count)});
}

void AdamWOptimizer::set_clip(Queue& queue, const Tensor& sum_of_squares) const {
  run(queue,
      ClipFactor{
          .scalars = scalars_.tensor(), .sum_of_squares = sum_of_squares, .max_norm = settings_.clip_grad});
}

Tensor AdamWOptimizer::grad_norm() const {
  return scalars_.tensor().rows(static_cast<std::int64_t>(StepScalar::grad_norm), 1);
}

void AdamWOptimizer::update(Queue& queue) const {
  for (const Segment& s : segments_) {
    const Tensor weight = store_.flat_weights().rows(s.flat, s.count);
    run(queue, AdamW{.weight = weight,
                     .master = master_.bytes() ? master_.tensor().rows(s.owned, s.count) : weight,
                     .exp_avg = exp_avg_.tensor().rows(s.owned, s.count),
                     .exp_avg_sq = exp_avg_sq_.tensor().rows(s.owned, s.count),
                     .grad = store_.flat_gradients().rows(s.flat, s.count),
                     .scalars = scalars_.tensor(),
                     .beta1 = settings_.beta1,
                     .beta2 = settings_.beta2,
                     .eps = settings_.eps,
                     .weight_decay = s.decays ? settings_.weight_decay : 0});
  }
}

void AdamWOptimizer::weights_from_masters(Queue& queue) const {
  if (master_.bytes() == 0) return;
  for (const Segment& s : segments_)
    run(queue,
        Cast{.y = store_.flat_weights().rows(s.flat, s.count), .x = master_.tensor().rows(s.owned, s.count)});
}

Tensor AdamWOptimizer::state(OptimizerState which) const {
  switch (which) {
    case OptimizerState::master:
      return master_.bytes() ? master_.tensor() : store_.flat_weights();
    case OptimizerState::exp_avg:
      return exp_avg_.tensor();
    case OptimizerState::exp_avg_sq:
      return exp_avg_sq_.tensor();
  }
  return {};
}

std::vector<TensorPart> AdamWOptimizer::parts(OptimizerState which, Copies copies) const {
  const bool in_weights = which == OptimizerState::master && master_.bytes() == 0;
  return owned_parts(state(which), in_weights ? Lies::flat : Lies::owned, DType::f32, copies);
}

std::vector<TensorPart> AdamWOptimizer::weight_parts(DType stored) const {
  return owned_parts(store_.flat_weights(), Lies::flat, stored, Copies::one);
}

std::int64_t AdamWOptimizer::given_by_others_from(const Parameter& p) const {
  if (p.tensor_gradient == TensorGradient::kv_replicas && place_.tensor_rank % place_.kv_replicas != 0)
    return p.replicated_row * p.shape[1];
  if (p.held_by_all_tensor_ranks && place_.tensor_rank != 0) return 0;
  return p.shape.count();
}

std::vector<TensorPart> AdamWOptimizer::owned_parts(const Tensor& local, Lies lies, DType stored,
                                                    Copies copies) const {
  std::vector<TensorPart> parts;
  for (const Parameter* p : store_.parameters()) {
    if (!p->trainable) continue;
    const auto b = static_cast<std::size_t>(store_.bucket_of(*p));
    const Bucket& bucket = store_.buckets()[b];
    const std::int64_t block = bucket.size / place_.data_ranks, offset = store_.offset(*p);
    const std::int64_t first = bucket.begin + place_.data_rank * block;
    // Parameter-local elements that this rank owns, and where element 0 would lie in `local`.
    const std::int64_t begin = first - offset;
    const std::int64_t end =
        copies == Copies::all ? begin + block : std::min(begin + block, given_by_others_from(*p));
    const std::int64_t shift = lies == Lies::flat ? offset : owned_begin_[b] - begin;
    for (const ParameterSlice& slice : p->slices)
      parts.push_back({.name = slice.name,
                       .dtype = stored,
                       .shape = slice.shape,
                       .local = local,
                       .runs = clip_runs(slice.runs, begin, end, shift)});
  }
  return parts;
}

}  // namespace verne
