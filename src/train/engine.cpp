#include "verne/train/engine.hpp"

#include <algorithm>
#include <cmath>

#include "verne/base/hash.hpp"
#include "verne/ops/elementwise.hpp"
#include "verne/ops/reduce.hpp"
#include "verne/ops/run.hpp"

namespace verne {
namespace {

std::int64_t rope_positions(const EngineOptions& options) {
  return options.batch.seq_length;
}

Tensor flat(const Tensor& tensor) {
  return tensor.view({tensor.count()});
}

bool all_finite(Queue& queue, const Tensor& values, const Tensor& total) {
  queue.zero(total);
  run(queue, SumOfSquares{.total = total, .values = flat(values)});
  return std::isfinite(queue.download_value<double>(total));
}

}  // namespace

StepBatch step_batch(const Batches& batches, std::int64_t step) {
  return {.counted_tokens = batches.counts(step).counted_tokens,
          .micro_batches = batches.accumulation_steps(),
          .micro_batch = [&batches, step](std::int64_t i) { return batches.micro_batch(step, i); }};
}

Engine::Engine(const ModelConfig& config, ParallelRuntime& runtime, const EngineOptions& options,
               const ArenaSizes& arenas)
    : runtime_(runtime),
      options_(options),
      model_(config, runtime.tensor_parallel(), options.recompute),
      store_(runtime.compute(), model_.parameters(), options.dtype, runtime.data().size(),
             options.bucket_elements, options.purpose),
      exchange_(runtime, store_),
      saved_(runtime.compute(), arenas.saved, MemoryKind::activations),
      replay_(runtime.compute(), arenas.replay, MemoryKind::activations),
      scratch_(runtime.compute(), arenas.scratch, MemoryKind::scratch) {
  Queue& queue = runtime.compute();
  if (options.purpose == Purpose::training) {
    const ProcessGrid& grid = runtime.grid();
    optimizer_.emplace(queue, store_, options.optimizer,
                       AdamWOptimizer::Place{.data_rank = runtime.data().rank(),
                                             .data_ranks = runtime.data().size(),
                                             .tensor_rank = grid.tensor(),
                                             .tensor_ranks = grid.sizes().tensor,
                                             .kv_replicas = runtime.kv_replica_count()});
  }
  const MicroBatchShape& shape = options.batch;
  const std::int64_t tokens = shape.rows * shape.seq_length;
  require(tokens % (runtime.tensor_parallel().shards_sequence() ? runtime.tensor().size() : 1) == 0,
          "{} tokens a micro-batch are not divisible by {} tensor ranks", tokens, runtime.tensor().size());
  const auto make = [&](DType type, std::int64_t count) {
    return Buffer(queue, type, {count}, MemoryKind::batch);
  };
  const std::int64_t half = config.rope.rotary_dim / 2, positions = rope_positions(options);
  rope_memory_ = make(DType::f32, 2 * positions * half);
  if (queue.kind() != QueueKind::meta)
    queue.upload(rope_memory_.tensor(), std::span<const float>(rope_table_values(config.rope, positions)));
  rope_ = {.cos = rope_memory_.tensor().rows(0, positions * half).view({positions, half}),
           .sin = rope_memory_.tensor().rows(positions * half, positions * half).view({positions, half})};
  tokens_ = make(DType::i32, tokens);
  targets_ = make(DType::i32, tokens);
  positions_ = make(DType::i32, tokens);
  loss_mask_ = make(DType::u8, tokens);
  starts_ = make(DType::i32, shape.document_capacity + 1);
  loss_scale_ = make(DType::f32, 1);
  loss_sum_ = make(DType::f64, 1);
  log_probability_ = make(DType::f32, tokens);
  sum_of_squares_ = make(DType::f64, 1);
  batch_ = {.token_count = tokens,
            .tokens = tokens_.tensor(),
            .targets = targets_.tensor(),
            .positions = positions_.tensor(),
            .loss_mask = loss_mask_.tensor(),
            .documents = {.kind = shape.table == DocumentTable::uniform ? DocumentLayout::Kind::uniform
                                                                        : DocumentLayout::Kind::packed,
                          .count = shape.document_capacity,
                          .max_length = shape.seq_length,
                          .starts = starts_.tensor()},
            .loss_scale = loss_scale_.tensor(),
            .loss_sum = loss_sum_.tensor(),
            .log_probability = log_probability_.tensor()};
}

Engine::~Engine() = default;

EnginePlan Engine::plan(const ModelConfig& config, const ProcessGrid& grid, TensorParallel::Sequence sequence,
                        const EngineOptions& options) {
  MetaTrace trace;
  ParallelRuntime runtime = ParallelRuntime::meta(trace, grid, config, sequence);
  Engine engine(config, runtime, options, {Arena::kUnbounded, Arena::kUnbounded, Arena::kUnbounded});
  if (options.purpose == Purpose::training) {
    engine.exchange_.begin_step();
    engine.run_micro_batch(ParameterExchange::MicroBatchPlace::last);
    engine.exchange_.finish_gradients();
    engine.update(1, 0);
  }
  EnginePlan plan;
  plan.operations = trace.operations();
  Step step = engine.make_step(Mode::evaluate);
  engine.model_.evaluate(step, engine.rope_);
  plan.arenas = {
      .saved = engine.saved_.peak(), .replay = engine.replay_.peak(), .scratch = engine.scratch_.peak()};
  plan.memory = trace.memory();
  plan.memory.add(MemoryKind::activations, plan.arenas.saved + plan.arenas.replay);
  plan.memory.add(MemoryKind::scratch, plan.arenas.scratch);
  return plan;
}

void Engine::initialize_random(std::uint64_t seed) {
  Queue& queue = runtime_.compute();
  for (const Parameter* p : store_.parameters()) {
    const Tensor weight = flat(store_.weight(*p));
    for (const ParameterSlice& slice : p->slices) {
      const auto site = static_cast<std::uint32_t>(xxh3(slice.name));
      for (const ElementRuns& r : slice.runs) {
        // A run of rows is a matrix of `count` rows of `length` elements, global_stride apart in the logical
        // tensor.
        const Tensor rows(weight.raw() + bytes_of(weight.dtype(), r.local), weight.dtype(),
                          {r.count, r.length}, std::max(r.local_stride, r.length));
        if (slice.init_deviation == 0) {
          run(queue, Fill{.y = rows, .value = slice.init_mean});
        } else {
          run(queue, RandomNormal{.y = rows,
                                  .site = {.seed = seed, .site = site},
                                  .mean = slice.init_mean,
                                  .deviation = slice.init_deviation,
                                  .first_column = r.global,
                                  .row_length = r.count == 1 ? r.global + r.length : r.global_stride});
        }
      }
    }
  }
  weights_changed();
}

std::vector<TensorPart> Engine::weight_parts(DType stored) {
  exchange_.wait_for_weights();
  return store_.weight_parts(stored);
}

void Engine::weights_changed() {
  if (optimizer_) optimizer_->initialize(runtime_.compute());
}

void Engine::masters_changed() {
  optimizer_->weights_from_masters(runtime_.compute());
  exchange_.gather_weights();
}

void Engine::upload(const MicroBatch& batch) {
  Queue& queue = runtime_.compute();
  queue.upload(batch_.tokens, std::span<const std::int32_t>(batch.tokens));
  queue.upload(batch_.targets, std::span<const std::int32_t>(batch.targets));
  queue.upload(batch_.positions, std::span<const std::int32_t>(batch.positions));
  queue.upload(batch_.loss_mask, std::span<const std::uint8_t>(batch.loss_mask));
  // Validation may hold fewer documents a batch than training, or more: documents of no tokens fill the
  // table.
  std::vector<std::int32_t> starts = batch.document_starts;
  starts.resize(static_cast<std::size_t>(starts_.tensor().count()),
                static_cast<std::int32_t>(batch.tokens.size()));
  queue.upload(starts_.tensor(), std::span<const std::int32_t>(starts));
}

void Engine::set_loss_scale(std::int64_t counted_tokens) {
  const float scale = 1.0f / static_cast<float>(std::max<std::int64_t>(1, counted_tokens));
  runtime_.compute().upload(loss_scale_.tensor(), std::span<const float>(&scale, 1));
  runtime_.compute().zero(loss_sum_.tensor());
}

Step Engine::make_step(Mode mode) {
  saved_.reset();
  return {.queue = runtime_.compute(),
          .tensor = runtime_.tensor_parallel(),
          .parameters = exchange_,
          .batch = batch_,
          .dtype = options_.dtype,
          .mode = mode,
          .saved = &saved_,
          .replay = replay_,
          .scratch = scratch_};
}

void Engine::run_micro_batch(ParameterExchange::MicroBatchPlace place) {
  exchange_.begin_micro_batch(place);
  Step step = make_step(Mode::train);
  Model::Saved saved;
  model_.forward(step, rope_, saved);
  model_.backward(step, rope_, saved);
}

double Engine::reduced_loss(std::int64_t counted_tokens) {
  Queue& queue = runtime_.compute();
  runtime_.data().all_reduce(queue, loss_sum_.tensor(), Reduce::sum).wait(queue);
  return queue.download_value<double>(loss_sum_.tensor()) /
         static_cast<double>(std::max<std::int64_t>(1, counted_tokens));
}

double Engine::accumulate_gradients(const StepBatch& batch) {
  set_loss_scale(batch.counted_tokens);
  exchange_.begin_step();
  for (std::int64_t i = 0; i < batch.micro_batches; ++i) {
    upload(batch.micro_batch(i));
    run_micro_batch(i + 1 == batch.micro_batches ? ParameterExchange::MicroBatchPlace::last
                                                 : ParameterExchange::MicroBatchPlace::not_last);
  }
  exchange_.finish_gradients();
  return reduced_loss(batch.counted_tokens);
}

void Engine::update(std::int64_t step, double learning_rate) {
  Queue& queue = runtime_.compute();
  optimizer_->begin_step(queue, step, learning_rate);
  queue.zero(sum_of_squares_.tensor());
  optimizer_->add_sum_of_squares(queue, sum_of_squares_.tensor());
  runtime_.data().all_reduce(queue, sum_of_squares_.tensor(), Reduce::sum).wait(queue);
  runtime_.tensor().all_reduce(queue, sum_of_squares_.tensor(), Reduce::sum).wait(queue);
  optimizer_->set_clip(queue, sum_of_squares_.tensor());
  optimizer_->update(queue);
  exchange_.gather_weights();
}

StepResult Engine::train_step(const StepBatch& batch, std::int64_t step, double learning_rate) {
  StepResult result;
  result.loss = accumulate_gradients(batch);
  update(step, learning_rate);
  result.grad_norm = static_cast<double>(runtime_.compute().download_value<float>(optimizer_->grad_norm()));
  return result;
}

double Engine::evaluate(const Batches& batches, std::int64_t steps) {
  std::int64_t counted = 0;
  set_loss_scale(1);
  for (std::int64_t s = 1; s <= steps; ++s) {
    counted += batches.counts(s).counted_tokens;
    for (std::int64_t a = 0; a < batches.accumulation_steps(); ++a) {
      upload(batches.micro_batch(s, a));
      Step step = make_step(Mode::evaluate);
      model_.evaluate(step, rope_);
    }
  }
  return reduced_loss(counted);
}

std::vector<float> Engine::log_probabilities(const MicroBatch& batch) {
  upload(batch);
  set_loss_scale(1);
  Step step = make_step(Mode::evaluate);
  model_.evaluate(step, rope_);
  std::vector<float> values(static_cast<std::size_t>(batch_.token_count));
  runtime_.compute().download(std::as_writable_bytes(std::span(values)), batch_.log_probability);
  return values;
}

std::vector<float> Engine::logits(const MicroBatch& batch) {
  Queue& queue = runtime_.compute();
  upload(batch);
  const Buffer out(queue, options_.dtype, {batch_.token_count, logit_columns()}, MemoryKind::scratch);
  const Buffer wide(queue, DType::f32, {batch_.token_count, logit_columns()}, MemoryKind::scratch);
  Step step = make_step(Mode::evaluate);
  model_.logits(step, rope_, out.tensor());
  run(queue, Cast{.y = wide.tensor(), .x = out.tensor()});
  std::vector<float> values(static_cast<std::size_t>(wide.tensor().count()));
  queue.download(std::as_writable_bytes(std::span(values)), wide.tensor());
  return values;
}

std::vector<TensorPart> Engine::gradient_parts() const {
  const Tensor gradients = store_.flat_gradients();
  std::vector<TensorPart> parts;
  for (const Bucket& bucket : store_.buckets()) {
    const std::int64_t block = bucket.size / runtime_.data().size();
    const std::int64_t first = bucket.begin + runtime_.data().rank() * block;
    for (int index : bucket.parameters) {
      const Parameter& p = *store_.parameters()[static_cast<std::size_t>(index)];
      const std::int64_t offset = store_.offset(p);
      for (const ParameterSlice& slice : p.slices)
        parts.push_back({.name = slice.name,
                         .dtype = DType::f32,
                         .shape = slice.shape,
                         .local = gradients,
                         .runs = clip_runs(slice.runs, first - offset, first - offset + block, offset)});
    }
  }
  return parts;
}

std::string Engine::first_not_finite(const HostGroup& world) {
  exchange_.wait_for_weights();
  Queue& queue = runtime_.compute();
  const auto count = static_cast<std::int64_t>(store_.parameters().size());
  // Weights first (indices from 0), then gradients (from `count`); the smallest index on any rank.
  std::int64_t found = 2 * count;
  for (std::int64_t i = 0; i < 2 * count && found == 2 * count; ++i) {
    const Parameter& p = *store_.parameters()[static_cast<std::size_t>(i % count)];
    Tensor values = i < count ? store_.weight(p) : store_.gradient(p);
    if (values.dtype() != DType::f32) {
      const Buffer wide(queue, DType::f32, values.shape(), MemoryKind::scratch);
      run(queue, Cast{.y = wide.tensor(), .x = values});
      if (!all_finite(queue, wide.tensor(), sum_of_squares_.tensor())) found = i;
      queue.synchronize();
    } else if (!all_finite(queue, values, sum_of_squares_.tensor())) {
      found = i;
    }
  }
  found = world.min(found);
  if (found == 2 * count) return {};
  return fmt::format("the {} of {}", found < count ? "weight" : "gradient",
                     store_.parameters()[static_cast<std::size_t>(found % count)]->name);
}

}  // namespace verne
