#include "verne/host/model_host.hpp"

#include <algorithm>

#include "verne/base/hash.hpp"
#include "verne/ops/elementwise.hpp"
#include "verne/ops/embedding.hpp"
#include "verne/ops/run.hpp"

namespace verne {
namespace {

using Kind = Action::Kind;

/// Megatron's: forty million elements a bucket, and at least a million for each rank that owns a block of it.
std::int64_t bucket_elements(std::int64_t wanted, int owners) {
  constexpr std::int64_t kBucket = 40'000'000, kBlock = 1'000'000;
  return wanted > 0 ? wanted : std::max(kBucket, kBlock * owners);
}

/// A stage has this many streams to send at a time, and gradients to receive, change in place and send.
constexpr int kOutputs = 2, kGradients = 3;

void freeze(Parameter& parameter, const std::function<bool(std::string_view)>& trains) {
  parameter.trainable = trains(parameter.slices.front().name);
  for (const ParameterSlice& slice : parameter.slices)
    require(trains(slice.name) == parameter.trainable, "{} trains, {} beside it in {} does not",
            parameter.trainable ? parameter.slices.front().name : slice.name,
            parameter.trainable ? slice.name : parameter.slices.front().name, parameter.name);
}

std::vector<Model> make_chunks(const ModelConfig& config, ParallelRuntime& runtime,
                               const HostOptions& options) {
  const PipelinePlace place = runtime.layout().pipeline();
  const std::vector<Chunk> all = split_layers(config, place.stages * place.chunks, options.batch.seq_length);
  std::vector<Model> chunks;
  for (int chunk = 0; chunk < place.chunks; ++chunk)
    chunks.emplace_back(config, runtime.tensor_parallel(),
                        all[static_cast<std::size_t>(place.model_chunk(chunk))], options.recompute);
  if (options.trains)
    for (Model& chunk : chunks)
      for (Parameter* p : chunk.parameters()) freeze(*p, options.trains);
  return chunks;
}

std::vector<std::vector<Parameter*>> parameters_of(std::vector<Model>& chunks) {
  std::vector<std::vector<Parameter*>> all;
  for (Model& chunk : chunks) all.push_back(chunk.parameters());
  return all;
}

}  // namespace

StepBatch blank_batch(const HostOptions& options) {
  return {.counted_tokens = 1,
          .micro_batches = options.micro_batches,
          .micro_batch = [shape = options.batch](std::int64_t) { return blank_micro_batch(shape); }};
}

ModelHost::ModelHost(const ModelConfig& config, ParallelRuntime& runtime, const HostOptions& options,
                     const ArenaSizes& arenas)
    : config_(config),
      runtime_(runtime),
      options_(options),
      place_(runtime.layout().pipeline()),
      training_(options.purpose == Purpose::training ? training_schedule(place_, options.micro_batches)
                                                     : PipelineSchedule{}),
      chunks_(make_chunks(config, runtime, options)),
      store_(runtime.compute(), parameters_of(chunks_), options.dtype, runtime.owner_place(),
             bucket_elements(options.bucket_elements, runtime.data().size()), options.purpose),
      exchange_(runtime, store_),
      feed_(runtime, options.batch,
            std::max(training_.batches, forward_schedule_for(4 * place_.stages).batches)),
      down_(runtime, PipelineLink::Direction::down),
      up_(runtime, PipelineLink::Direction::up),
      saved_(static_cast<std::size_t>(training_.slots)),
      replay_(runtime.compute(), arenas.replay, MemoryKind::activations),
      scratch_(runtime.compute(), arenas.scratch, MemoryKind::scratch) {
  Queue& queue = runtime.compute();
  const std::int64_t tokens = feed_.tokens();
  require(!runtime.tensor_parallel().shards_sequence() || tokens % runtime.tensor().size() == 0,
          "{} tokens of a micro-batch are not divisible by {} tensor ranks", tokens, runtime.tensor().size());
  for (int slot = 0; slot < training_.slots; ++slot)
    slots_.emplace_back(queue, arenas.slot, MemoryKind::activations);
  unread_loss_ = Buffer(queue, DType::f64, {1}, MemoryKind::batch);
  unit_scale_ = Buffer(queue, DType::f32, {1}, MemoryKind::batch);
  run(queue, Fill{.y = unit_scale_.tensor(), .value = 1});
  queue.zero(unread_loss_.tensor());
  make_rope();
  if (place_.stages == 1) return;
  const Shape stream = {runtime.tensor_parallel().stream_tokens(tokens), config.hidden_size};
  const auto make = [&](std::vector<Buffer>& buffers, int count) {
    for (int i = 0; i < count; ++i)
      buffers.emplace_back(queue, options.dtype, stream, MemoryKind::communication);
  };
  make(inputs_, std::max(training_.inputs, forward_schedule_for(4 * place_.stages).inputs));
  make(outputs_, kOutputs);
  if (options.purpose == Purpose::training) make(gradients_, kGradients);
}

ModelHost::~ModelHost() = default;

void ModelHost::make_rope() {
  Queue& queue = runtime_.compute();
  const std::int64_t half = config_.rope.rotary_dim / 2, positions = options_.batch.seq_length;
  rope_memory_ = Buffer(queue, DType::f32, {2 * positions * half}, MemoryKind::batch);
  const Tensor memory = rope_memory_.tensor();
  if (queue.kind() == QueueKind::meta) {
    queue.zero(memory);
  } else {
    queue.upload(memory, std::span<const float>(rope_table_values(config_.rope, positions)));
  }
  rope_ = {.cos = memory.rows(0, positions * half).view({positions, half}),
           .sin = memory.rows(positions * half, positions * half).view({positions, half})};
}

PipelineSchedule ModelHost::forward_schedule_for(std::int64_t micro_batches) const {
  return forward_schedule(place_, micro_batches);
}

HostPlan ModelHost::planned(const MetaTrace& trace) const {
  HostPlan plan{.arenas = {.replay = replay_.peak(), .scratch = scratch_.peak()},
                .slots = training_.slots,
                .memory = trace.memory()};
  for (const Arena& slot : slots_) plan.arenas.slot = std::max(plan.arenas.slot, slot.peak());
  plan.memory.add(MemoryKind::activations, plan.slots * plan.arenas.slot + plan.arenas.replay);
  plan.memory.add(MemoryKind::scratch, plan.arenas.scratch);
  return plan;
}

HostPlan ModelHost::plan(const ModelConfig& config, const ParallelLayout& layout,
                         const HostOptions& options) {
  MetaTrace trace;
  ParallelRuntime runtime = ParallelRuntime::meta(layout, config, trace, options.determinism);
  ModelHost host(config, runtime, options, kUnboundedArenas);
  host.log_probabilities(blank_batch(options), [](std::int64_t, std::span<const float>) {});
  return host.planned(trace);
}

Step ModelHost::make_step(const DeviceBatch& batch, Arena* saved) {
  return {.queue = runtime_.compute(),
          .tensor = runtime_.tensor_parallel(),
          .context = {.communicator = &runtime_.context(),
                      .queue = &runtime_.queue(ParallelRuntime::Lane::context),
                      .from_ranks = feed_.from_ranks(),
                      .from_rows = feed_.from_rows()},
          .parameters = exchange_,
          .batch = batch,
          .dtype = options_.dtype,
          .saved = saved,
          .replay = replay_,
          .scratch = scratch_};
}

DeviceBatch ModelHost::batch_for(const Action& action, const LossTerms& loss) {
  DeviceBatch batch = feed_.ready(action.batch);
  batch.loss_scale = loss.scale;
  batch.loss_sum = loss.sum;
  return batch;
}

void ModelHost::fetch_next(const Action& action, const StepBatch& batch) {
  if (action.next_micro_batch >= 0)
    feed_.start(action.next_batch, batch.micro_batch(action.next_micro_batch));
}

Tensor ModelHost::input(const Action& action) const {
  return action.input < 0 ? Tensor{} : inputs_[static_cast<std::size_t>(action.input)].tensor();
}

std::vector<Hop> ModelHost::down_hops(const PipelineSchedule& schedule) const {
  std::vector<Hop> hops;
  for (const Action& action : schedule.actions) {
    if (action.kind != Kind::forward) continue;
    const bool sends = place_.stages > 1 && !place_.last(action.chunk);
    hops.push_back({.receives = input(action), .sends = sends ? output(hops.size()) : Tensor{}});
  }
  return hops;
}

std::vector<Hop> ModelHost::up_hops(const PipelineSchedule& schedule) const {
  std::vector<Hop> hops;
  for (const Action& action : schedule.actions) {
    if (action.kind != Kind::backward) continue;
    const auto end = [&](bool at_end) {
      return place_.stages == 1 || at_end ? Tensor{} : gradient(hops.size());
    };
    hops.push_back({.receives = end(place_.last(action.chunk)), .sends = end(place_.first(action.chunk))});
  }
  return hops;
}

void ModelHost::train(const StepBatch& batch, const LossTerms& loss) {
  require(batch.micro_batches == options_.micro_batches, "{} micro-batches where {} were planned",
          batch.micro_batches, options_.micro_batches);
  exchange_.begin_step(batch.micro_batches);
  const PipelineSchedule& schedule = training_;
  down_.begin(down_hops(schedule));
  up_.begin(up_hops(schedule));
  feed_.start(schedule.actions.front().batch, batch.micro_batch(schedule.actions.front().micro_batch));
  std::size_t forwards = 0, backwards = 0;
  for (const Action& action : schedule.actions) {
    const DeviceBatch device = batch_for(action, loss);
    const Model& chunk = chunks_[static_cast<std::size_t>(action.chunk)];
    const auto slot = static_cast<std::size_t>(action.slot);
    Step step = make_step(device, &slots_[slot]);
    if (action.kind == Kind::forward) {
      down_.arrive();
      slots_[slot].reset();
      saved_[slot] = {};
      chunk.forward(step, rope_, input(action), chunk.chunk().head ? Tensor{} : output(forwards++),
                    saved_[slot]);
      down_.depart();
    } else {
      up_.arrive();
      const ArenaScope scope(scratch_);
      const Tensor dx = place_.stages > 1
                            ? gradient(backwards++)
                            : step.temporary(options_.dtype, {step.stream_tokens(), config_.hidden_size});
      chunk.backward(step, rope_, dx, saved_[slot]);
      up_.depart();
    }
    fetch_next(action, batch);
  }
  down_.finish();
  up_.finish();
  exchange_.finish_gradients();
}

void ModelHost::evaluate_with(const StepBatch& batch, const LossTerms& loss, const Head& head) {
  if (batch.micro_batches == 0) return;
  const PipelineSchedule schedule = forward_schedule_for(batch.micro_batches);
  down_.begin(down_hops(schedule));
  feed_.start(schedule.actions.front().batch, batch.micro_batch(schedule.actions.front().micro_batch));
  std::size_t forwards = 0;
  for (const Action& action : schedule.actions) {
    const DeviceBatch device = batch_for(action, loss);
    const Model& chunk = chunks_[static_cast<std::size_t>(action.chunk)];
    Step step = make_step(device, &replay_);
    down_.arrive();
    if (chunk.chunk().head) {
      head(step, action.micro_batch, chunk, input(action));
    } else {
      chunk.evaluate(step, rope_, input(action), output(forwards++));
    }
    down_.depart();
    fetch_next(action, batch);
  }
  down_.finish();
}

void ModelHost::evaluate(const StepBatch& batch, const LossTerms& loss) {
  evaluate_with(batch, loss, [&](Step& step, std::int64_t, const Model& chunk, const Tensor& in) {
    chunk.evaluate(step, rope_, in, {});
  });
}

/// `rows` [tokens, width] of this context rank with those of the others, in the rows' order.
void ModelHost::in_row_order(const Tensor& rows, const std::function<void(const Tensor&)>& take) {
  Communicator& context = runtime_.context();
  if (context.size() == 1) return take(rows);
  Queue& queue = runtime_.compute();
  const Shape all = {feed_.key_tokens(), rows.size(1)};
  const Buffer gathered(queue, rows.dtype(), all, MemoryKind::scratch);
  const Buffer ordered(queue, rows.dtype(), all, MemoryKind::scratch);
  context.all_gather(queue, gathered.tensor(), rows).wait(queue);
  verne::run(queue, EmbeddingForward{
                        .y = ordered.tensor(), .weight = gathered.tensor(), .tokens = feed_.from_ranks()});
  take(ordered.tensor());
}

void ModelHost::log_probabilities(const StepBatch& batch,
                                  const std::function<void(std::int64_t, std::span<const float>)>& done) {
  std::vector<float> values(static_cast<std::size_t>(feed_.key_tokens()));
  evaluate_with(batch, {unit_scale_.tensor(), unread_loss_.tensor()},
                [&](Step& step, std::int64_t micro_batch, const Model& chunk, const Tensor& in) {
                  chunk.evaluate(step, rope_, in, {});
                  in_row_order(step.batch.log_probability.view({step.tokens(), 1}), [&](const Tensor& all) {
                    step.queue.download(std::as_writable_bytes(std::span(values)), all);
                  });
                  done(micro_batch, values);
                });
}

std::int64_t ModelHost::logit_columns() const {
  return chunks_.back().logit_columns();
}

std::vector<float> ModelHost::logits(const MicroBatch& batch) {
  std::vector<float> values;
  const StepBatch one{
      .counted_tokens = 1, .micro_batches = 1, .micro_batch = [&](std::int64_t) { return batch; }};
  evaluate_with(one, {unit_scale_.tensor(), unread_loss_.tensor()},
                [&](Step& step, std::int64_t, const Model& chunk, const Tensor& in) {
                  const Shape shape = {step.tokens(), logit_columns()};
                  const Buffer out(step.queue, options_.dtype, shape, MemoryKind::scratch);
                  const Buffer wide(step.queue, DType::f32, shape, MemoryKind::scratch);
                  chunk.logits(step, rope_, in, out.tensor());
                  verne::run(step.queue, Cast{.y = wide.tensor(), .x = out.tensor()});
                  in_row_order(wide.tensor(), [&](const Tensor& all) {
                    values.resize(static_cast<std::size_t>(all.count()));
                    step.queue.download(std::as_writable_bytes(std::span(values)), all);
                  });
                });
  return values;
}

void ModelHost::initialize_random(std::uint64_t seed) {
  Queue& queue = runtime_.compute();
  for (const Parameter* p : store_.parameters()) {
    const Tensor weight = store_.weight(*p).view({p->shape.count()});
    for (const ParameterSlice& slice : p->slices) {
      // The name's hash names the site: its lower half by number, its upper half through the seed.
      const std::uint64_t hash = xxh3(slice.name);
      const RandomSite site{.seed = seed ^ (hash & 0xffffffff00000000u),
                            .site = static_cast<std::uint32_t>(hash)};
      for (const ElementRuns& r : slice.runs) {
        // A run of rows is a matrix of `count` rows of `length` elements, global_stride apart in the logical
        // tensor.
        const Tensor rows(weight.raw() + bytes_of(weight.dtype(), r.local), weight.dtype(),
                          {r.count, r.length}, std::max(r.local_stride, r.length));
        if (slice.init_deviation == 0) {
          verne::run(queue, Fill{.y = rows, .value = slice.init_mean});
        } else {
          verne::run(queue, RandomNormal{.y = rows,
                                         .site = site,
                                         .mean = slice.init_mean,
                                         .deviation = slice.init_deviation,
                                         .first_column = r.global,
                                         .row_length = r.count == 1 ? r.global + r.length : r.global_stride});
        }
      }
    }
  }
}

std::vector<TensorPart> ModelHost::loadable_parts(DType stored, ParameterStore::Which which) {
  exchange_.wait_for_weights();
  return store_.weight_parts(stored, ParameterStore::Share::owned, which);
}

void ModelHost::weights_loaded() {
  exchange_.gather_weights(ParameterExchange::Pools::all);
}

std::vector<TensorPart> ModelHost::weight_parts(DType stored, ParameterStore::Share share,
                                                ParameterStore::Which which) {
  exchange_.wait_for_weights();
  return store_.weight_parts(stored, share, which);
}

}  // namespace verne
