// Engines small enough for tests, under any layout of the ranks, with batches made by hand.
#pragma once
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "verne/host/layout.hpp"
#include "verne/train/engine.hpp"
#include "whole_tensors.hpp"

namespace verne::testing {

/// `vocabulary` 131 is prime: no number of tensor ranks divides it.
inline std::string small_config_text(const std::string& family, std::int64_t vocabulary = 131,
                                     std::int64_t kv_heads = 2) {
  const std::string tail = family == "nemotron" ? R"("hidden_act": "relu2", "norm_eps": 1e-5)"
                                                : R"("hidden_act": "silu", "rms_norm_eps": 1e-6)";
  const std::string architecture =
      static_cast<char>(std::toupper(family[0])) + family.substr(1) + "ForCausalLM";
  return fmt::format(
      R"({{"model_type": "{}", "architectures": ["{}"], "vocab_size": {}, "hidden_size": 32,
          "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": {},
          "head_dim": 8, "max_position_embeddings": 128, "tie_word_embeddings": {}, "initializer_range": 0.2,
          "eos_token_id": 1, {}}})",
      family, architecture, vocabulary, kv_heads, family == "qwen3", tail);
}
inline ModelConfig small_config(const std::string& family, std::int64_t vocabulary = 131,
                                std::int64_t kv_heads = 2) {
  return parse_model_config(small_config_text(family, vocabulary, kv_heads), "config.json");
}

/// A row of a batch: one document from the row's start, with the targets that count.
struct Row {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> counts;  ///< as long as tokens; entry 0 is 0
};
/// Rows of `length` random tokens; in row i `counted[i]` targets count.
inline std::vector<Row> random_rows(std::uint64_t seed, const std::vector<std::int64_t>& counted,
                                    std::int64_t length, std::int64_t vocabulary) {
  std::mt19937_64 random(seed);
  std::vector<Row> rows;
  for (std::int64_t count : counted) {
    Row row;
    for (std::int64_t t = 0; t < length; ++t)
      row.tokens.push_back(static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocabulary)));
    row.counts.resize(row.tokens.size());
    for (std::int64_t t = 0; t < count; ++t) row.counts[static_cast<std::size_t>(length - 1 - t)] = 1;
    rows.push_back(row);
  }
  return rows;
}
inline std::int64_t counted_tokens(std::span<const Row> rows) {
  std::int64_t count = 0;
  for (const Row& row : rows) count = std::accumulate(row.counts.begin(), row.counts.end(), count);
  return count;
}

/// Rows as a uniform micro-batch, padded to `seq_length`.
inline MicroBatch micro_batch_of(std::span<const Row> rows, std::int64_t seq_length) {
  const std::int64_t count = std::ssize(rows);
  MicroBatch batch{.rows = count, .seq_length = seq_length, .documents = count};
  const auto total = static_cast<std::size_t>(count * seq_length);
  batch.tokens.resize(total);
  batch.targets.resize(total);
  batch.loss_mask.resize(total);
  batch.positions.resize(total);
  for (std::int64_t r = 0; r < count; ++r) {
    const Row& row = rows[static_cast<std::size_t>(r)];
    batch.document_starts.push_back(static_cast<std::int32_t>(r * seq_length));
    for (std::int64_t t = 0; t < seq_length; ++t) {
      const auto at = static_cast<std::size_t>(r * seq_length + t), i = static_cast<std::size_t>(t);
      batch.positions[at] = static_cast<std::int32_t>(t);
      if (i < row.tokens.size()) batch.tokens[at] = row.tokens[i];
      if (i + 1 < row.tokens.size()) {
        batch.targets[at] = row.tokens[i + 1];
        batch.loss_mask[at] = row.counts[i + 1];
      }
    }
  }
  batch.document_starts.push_back(static_cast<std::int32_t>(total));
  batch.counted_tokens = counted_tokens(rows);
  batch.real_tokens = static_cast<std::int64_t>(total);
  return batch;
}

struct SmallLayout {
  int tensor = 1, context = 1, pipeline = 1, chunks = 1;
  TensorParallel::Sequence sequence = TensorParallel::Sequence::sharded;
  std::int64_t micro_batch = 1;    ///< rows
  std::int64_t micro_batches = 1;  ///< of a data rank in a step
  DType dtype = DType::f32;
  Recompute recompute = Recompute::none;
  std::function<bool(std::string_view)> trains = {};

  ParallelLayout on(int rank, int ranks) const {
    return {.grid = ProcessGrid(rank, ranks, {.tensor = tensor, .context = context, .pipeline = pipeline}),
            .sequence = tensor > 1 ? sequence : TensorParallel::Sequence::whole,
            .chunks = chunks};
  }
  std::string text() const {
    return fmt::format("TP{}{} CP{} PP{}x{}, {} x {} rows", tensor,
                       sequence == TensorParallel::Sequence::whole ? " whole" : "", context, pipeline, chunks,
                       micro_batches, micro_batch);
  }
};

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

/// Layouts that a number of ranks allows: every product of tensor, context and pipeline that divides it, and
/// interleaved pipelines.
inline std::vector<SmallLayout> small_layouts(int ranks, const ModelConfig& config) {
  std::vector<SmallLayout> all;
  for (int tensor = 1; tensor <= ranks; tensor *= 2)
    for (int context = 1; tensor * context <= ranks; context *= 2)
      for (int pipeline = 1; tensor * context * pipeline <= ranks; pipeline *= 2)
        for (int chunks = 1; chunks <= (pipeline > 1 ? 2 : 1); ++chunks) {
          const int model = tensor * context * pipeline;
          if (ranks % model != 0 || pipeline * chunks > config.layers + 2 || config.heads % tensor != 0)
            continue;
          all.push_back({.tensor = tensor, .context = context, .pipeline = pipeline, .chunks = chunks});
        }
  return all;
}

}  // namespace verne::testing
