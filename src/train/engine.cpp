#include "verne/train/engine.hpp"

#include <algorithm>
#include <cmath>

#include "verne/ops/elementwise.hpp"
#include "verne/ops/reduce.hpp"
#include "verne/ops/run.hpp"

namespace verne {
namespace {

bool all_finite(Queue& queue, const Tensor& values) {
  const Buffer total(queue, DType::f64, {1}, MemoryKind::scratch);
  queue.zero(total.tensor());
  run(queue, SumOfSquares{.total = total.tensor(), .values = values.view({values.count()})});
  return std::isfinite(queue.download_value<double>(total.tensor()));
}

}  // namespace

Engine::Engine(const ModelConfig& config, ParallelRuntime& runtime, const EngineOptions& options,
               const ArenaSizes& arenas)
    : options_(options),
      host_(config, runtime, options.host, arenas),
      optimizer_(runtime.compute(), host_.store(), options.optimizer),
      records_(runtime, kAhead),
      evaluation_sum_(runtime.compute(), DType::f64, {1}, MemoryKind::batch) {}

Engine::~Engine() = default;

void Engine::rehearse(Engine& engine) {
  const StepBatch batch = blank_batch(engine.options_.host);
  engine.weights_changed();
  engine.train_step(batch, 1, 0);
  engine.read_step();
  engine.host_.evaluate(batch, engine.loss_terms());
}

HostPlan Engine::plan(const ModelConfig& config, const ParallelLayout& layout, const EngineOptions& options) {
  MetaTrace trace;
  ParallelRuntime runtime = ParallelRuntime::meta(layout, config, trace, options.host.determinism);
  // More micro-batches than fill the pipeline need no more memory.
  EngineOptions few = options;
  const PipelinePlace place = layout.pipeline();
  few.host.micro_batches =
      std::min<std::int64_t>(options.host.micro_batches, 2 * place.stages * place.chunks + place.stages);
  Engine engine(config, runtime, few, kUnboundedArenas);
  rehearse(engine);
  return engine.host_.planned(trace);
}

void Engine::weights_changed() {
  optimizer_.initialize(runtime().compute());
}

void Engine::initialize_random(std::uint64_t seed) {
  host_.initialize_random(seed);
  weights_changed();
}

void Engine::state_restored() {
  optimizer_.weights_from_masters(runtime().compute());
  host_.weights_loaded();
}

/// The last stage has the sum; of its tensor ranks, which all have the same, one speaks.
bool Engine::reports_loss() {
  return host_.has_head() && runtime().tensor().rank() == 0;
}

void Engine::train_step(const StepBatch& batch, std::int64_t step, double learning_rate,
                        const Signals& signals) {
  Queue& queue = runtime().compute();
  StepRecords::Inputs inputs{.step = step, .counted_tokens = batch.counted_tokens, .signals = signals};
  optimizer_.fill_scalars(inputs.scalars, step, learning_rate);
  records_.begin(inputs);
  host_.train(batch, loss_terms());
  optimizer_.add_sum_of_squares(queue, records_.sum_of_squares());
  records_.reduce(reports_loss());
  optimizer_.set_clip(queue, records_.scalars(), records_.sum_of_squares(), records_.loss_sum());
  optimizer_.update(queue, records_.scalars());
  records_.end();
  host_.exchange().gather_weights();
}

double Engine::accumulate_gradients(const StepBatch& batch) {
  records_.begin({.step = 0, .counted_tokens = batch.counted_tokens});
  host_.train(batch, loss_terms());
  records_.reduce(reports_loss());
  records_.end();
  return records_.read().loss;
}

double Engine::evaluate(const Batches& batches, std::int64_t steps) {
  Queue& queue = runtime().compute();
  const Tensor sum = evaluation_sum_.tensor();
  queue.zero(sum);
  std::int64_t counted = 0;
  for (std::int64_t step = 1; step <= steps; ++step) {
    const StepBatch batch = batches.batch(step);
    counted += batch.counted_tokens;
    host_.evaluate(batch, {records_.loss_scale(), sum});
  }
  if (!reports_loss()) queue.zero(sum);
  runtime().world().all_reduce(queue, sum, Reduce::sum).wait(queue);
  return queue.download_value<double>(sum) / static_cast<double>(std::max<std::int64_t>(1, counted));
}

std::string Engine::first_not_finite(const StepBatch& batch, const HostGroup& world) {
  while (records_.unread() > 0) records_.read();
  // The updates since were skipped: the same weights give the same gradients again.
  accumulate_gradients(batch);
  host_.exchange().wait_for_weights();
  Queue& queue = runtime().compute();
  // Weights before gradients, each in the model's order.
  constexpr std::int64_t kNone = std::int64_t{1} << 40;
  std::int64_t found = kNone;
  std::string name;
  for (const Parameter* p : host_.store().parameters()) {
    for (const bool gradient : {false, true}) {
      const std::int64_t place = p->order + (gradient ? kNone / 2 : 0);
      if (place >= found || (gradient && !p->trainable)) continue;
      const Tensor values = gradient ? host_.store().gradient(*p) : host_.store().weight(*p);
      Buffer wide;
      if (values.dtype() != DType::f32) {
        wide = Buffer(queue, DType::f32, values.shape(), MemoryKind::scratch);
        run(queue, Cast{.y = wide.tensor(), .x = values});
      }
      if (all_finite(queue, wide.bytes() > 0 ? wide.tensor() : values)) continue;
      found = place;
      name = fmt::format("the {} of {}", gradient ? "gradient" : "weight", p->name);
    }
  }
  const std::int64_t first = world.min(found);
  if (first == kNone) return {};
  const std::int64_t speaker = world.min(found == first ? world.rank() : world.size());
  return world.broadcast_text(name, static_cast<int>(speaker));
}

}  // namespace verne
