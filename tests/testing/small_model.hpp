// Models small enough for tests, layouts of ranks for them, and batches made by hand.
#pragma once
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "verne/host/layout.hpp"
#include "verne/host/model_host.hpp"

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
