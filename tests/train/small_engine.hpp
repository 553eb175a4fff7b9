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

#include "verne/train/engine.hpp"
#include "verne/train/hardware.hpp"
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
  int tensor = 1;
  TensorParallel::Sequence sequence = TensorParallel::Sequence::sharded;
  std::int64_t micro_batch = 1;  ///< rows
  DType dtype = DType::f32;
  Recompute recompute = Recompute::none;
};

/// An engine over all ranks of `world` whose arenas are those of its plan.
class SmallEngine {
 public:
  SmallEngine(const HostGroup& world, const ModelConfig& config, const SmallLayout& layout,
              MicroBatchShape shape)
      : world_(world),
        grid_(world.rank(), world.size(), {.tensor = layout.tensor}),
        runtime_(make_runtime(world, grid_, config, layout.sequence, DeviceKind::cpu, 0, 1,
                              ParallelRuntime::Bits::reproducible, nullptr)),
        options_{.dtype = layout.dtype,
                 .recompute = layout.recompute,
                 .optimizer = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip_grad = 1},
                 .batch = shape,
                 .bucket_elements = 3'000},
        plan_(Engine::plan(config, grid_, layout.sequence, options_)),
        engine_(config, runtime_, options_, plan_.arenas) {
    engine_.initialize_random(5);
  }
  /// For uniform batches of rows of `length` tokens.
  SmallEngine(const HostGroup& world, const ModelConfig& config, const SmallLayout& layout,
              std::int64_t length)
      : SmallEngine(
            world, config, layout,
            MicroBatchShape{.rows = layout.micro_batch,
                            .seq_length = (length + layout.tensor - 1) / layout.tensor * layout.tensor,
                            .table = DocumentTable::uniform,
                            .document_capacity = layout.micro_batch}) {}
  SmallEngine(const SmallEngine&) = delete;

  Engine* operator->() { return &engine_; }
  ParallelRuntime& runtime() { return runtime_; }
  const EnginePlan& plan() const { return plan_; }
  const ProcessGrid& grid() const { return grid_; }

  /// This data rank's share of a global batch: consecutive rows, cut into micro-batches.
  StepBatch batch(std::span<const Row> rows) const {
    const std::int64_t own = std::ssize(rows) / grid_.sizes().data, micro = options_.batch.rows;
    require(own * grid_.sizes().data == std::ssize(rows) && own % micro == 0, "{} rows do not fit",
            rows.size());
    const auto mine =
        rows.subspan(static_cast<std::size_t>(grid_.data() * own), static_cast<std::size_t>(own));
    return {.counted_tokens = counted_tokens(rows),
            .micro_batches = own / micro,
            .micro_batch = [mine, micro, length = options_.batch.seq_length](std::int64_t i) {
              return micro_batch_of(
                  mine.subspan(static_cast<std::size_t>(i * micro), static_cast<std::size_t>(micro)), length);
            }};
  }

  /// Logical tensors, whole on every rank.
  std::map<std::string, std::vector<double>> whole(const std::vector<TensorPart>& parts) {
    return whole_tensors(world_, runtime_.compute(), parts);
  }

 private:
  const HostGroup& world_;
  ProcessGrid grid_;
  ParallelRuntime runtime_;
  EngineOptions options_;
  EnginePlan plan_;
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

/// The tensor sizes that a number of ranks allows.
inline std::vector<int> tensor_sizes(int ranks) {
  std::vector<int> sizes;
  for (int tensor = 1; tensor <= ranks; tensor *= 2) sizes.push_back(tensor);
  return sizes;
}

}  // namespace verne::testing
