// Engines for small models, under any layout of the ranks.
#pragma once
#include <cmath>
#include <cstring>
#include <map>

#include "small_model.hpp"
#include "verne/train/engine.hpp"
#include "whole_tensors.hpp"

namespace verne::testing {

inline EngineOptions small_options(const SmallLayout& layout, const MicroBatchShape& shape) {
  return {.host = {.dtype = layout.dtype,
                   .recompute = layout.recompute,
                   .batch = shape,
                   .micro_batches = layout.micro_batches,
                   .bucket_elements = 3'000,
                   .trains = layout.trains},
          .optimizer = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip_grad = 1}};
}

/// An engine over all ranks of `world` whose arenas are those of its plan.
class SmallEngine {
 public:
  SmallEngine(const HostGroup& world, const ModelConfig& config, const SmallLayout& layout,
              MicroBatchShape shape)
      : world_(world),
        layout_(layout.on(world.rank(), world.size())),
        runtime_(ParallelRuntime::cpu(world, layout_, config, 1)),
        options_(small_options(layout, shape)),
        plan_(Engine::plan(config, layout_, options_)),
        engine_(config, runtime_, options_, plan_.arenas) {
    engine_.initialize_random(5);
  }
  /// For uniform batches of rows of `length` tokens.
  SmallEngine(const HostGroup& world, const ModelConfig& config, const SmallLayout& layout,
              std::int64_t length)
      : SmallEngine(
            world, config, layout,
            MicroBatchShape{.rows = layout.micro_batch,
                            .seq_length = padded_length(layout.on(world.rank(), world.size()), length),
                            .table = DocumentTable::uniform,
                            .document_capacity = layout.micro_batch}) {}
  SmallEngine(const SmallEngine&) = delete;

  Engine* operator->() { return &engine_; }
  Engine& engine() { return engine_; }
  ModelHost& host() { return engine_.host(); }
  ParallelRuntime& runtime() { return runtime_; }
  const HostPlan& plan() const { return plan_; }
  const ProcessGrid& grid() const { return layout_.grid; }

  /// This data rank's share of a global batch: consecutive rows, cut into micro-batches.
  StepBatch batch(std::span<const Row> rows) const {
    const std::int64_t own = std::ssize(rows) / grid().sizes().data, micro = options_.host.batch.rows;
    require(own * grid().sizes().data == std::ssize(rows) && own % micro == 0, "{} rows do not fit",
            rows.size());
    const auto mine =
        rows.subspan(static_cast<std::size_t>(grid().data() * own), static_cast<std::size_t>(own));
    return {.counted_tokens = counted_tokens(rows),
            .micro_batches = own / micro,
            .micro_batch = [mine, micro, length = options_.host.batch.seq_length](std::int64_t i) {
              return micro_batch_of(
                  mine.subspan(static_cast<std::size_t>(i * micro), static_cast<std::size_t>(micro)), length);
            }};
  }
  StepResult step(const StepBatch& batch, std::int64_t number, double learning_rate) {
    engine_.train_step(batch, number, learning_rate);
    return engine_.read_step();
  }
  /// Log-probabilities of one micro-batch, on all ranks of its pipeline.
  std::vector<float> log_probabilities(const MicroBatch& batch) {
    std::vector<float> all;
    host().log_probabilities(
        {.counted_tokens = 1, .micro_batches = 1, .micro_batch = [&](std::int64_t) { return batch; }},
        [&](std::int64_t, std::span<const float> values) { all.assign(values.begin(), values.end()); });
    return from_last_stage(std::move(all));
  }
  std::vector<float> from_last_stage(std::vector<float> values) const {
    const HostGroup stages = world_.split(grid().pipeline_colour(), world_.rank());
    std::string text(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    text = stages.broadcast_text(std::move(text), stages.size() - 1);
    values.resize(text.size() / sizeof(float));
    std::memcpy(values.data(), text.data(), text.size());
    return values;
  }

  /// Logical tensors, whole on every rank.
  std::map<std::string, std::vector<double>> whole(const std::vector<TensorPart>& parts) {
    return whole_tensors(world_, runtime_.compute(), parts);
  }
  std::map<std::string, std::vector<double>> gradients() {
    return whole(host().store().gradient_parts(ParameterStore::Share::counted));
  }
  std::map<std::string, std::vector<double>> weights() {
    return whole(host().weight_parts(DType::f32, ParameterStore::Share::counted));
  }
  std::map<std::string, std::vector<double>> state(OptimizerState which) {
    return whole(engine_.optimizer_parts(which, ParameterStore::Share::counted));
  }

 private:
  const HostGroup& world_;
  ParallelLayout layout_;
  ParallelRuntime runtime_;
  EngineOptions options_;
  HostPlan plan_;
  Engine engine_;
};

/// ‖found − expected‖ / ‖expected‖
inline double distance(const std::vector<double>& found, const std::vector<double>& expected) {
  double square = 0, norm = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    square += (found[i] - expected[i]) * (found[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(square) / std::sqrt(norm);
}

}  // namespace verne::testing
