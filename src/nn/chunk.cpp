#include "verne/nn/chunk.hpp"

#include <algorithm>
#include <limits>

#include "verne/base/error.hpp"

namespace verne {
namespace {

/// Time of the embedding as a share of the head's: it is bound by memory, the head by matrix units.
constexpr double kEmbeddingShare = 0.015;

/// What stands in a model one after the other: embedding, layers, head.
std::vector<double> costs_of(const ModelConfig& config, std::int64_t seq_length) {
  const auto real = [](std::int64_t value) { return static_cast<double>(value); };
  const double hidden = real(config.hidden_size);
  const double attention_width = real(config.heads * config.head_dim);
  const double projections =
      hidden * (2 * attention_width + 2 * real(config.kv_heads * config.head_dim)) +
      (config.mlp == MlpKind::swiglu ? 3 : 2) * hidden * real(config.intermediate_size);
  std::vector<double> costs;
  const double head = 2 * hidden * real(config.vocab_size);
  costs.push_back(kEmbeddingShare * head);
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const std::int64_t window = config.windows[static_cast<std::size_t>(layer)];
    const double seen = window > 0 && 2 * window < seq_length ? real(window) : real(seq_length) / 2;
    costs.push_back(2 * projections + 4 * attention_width * seen);
  }
  costs.push_back(head);
  return costs;
}

}  // namespace

Chunk whole_model(const ModelConfig& config) {
  return {.first_layer = 0, .last_layer = config.layers, .embedding = true, .head = true};
}

std::vector<Chunk> split_layers(const ModelConfig& config, int count, std::int64_t seq_length) {
  require(count >= 1, "a model in {} chunks", count);
  if (count == 1) return {whole_model(config)};
  require_user(config.layers + 2 >= count,
               "a model of {} layers cannot be cut into {} pipeline chunks (parallel.pipeline · "
               "parallel.virtual_pipeline); at most {} hold a layer, the embedding or the head",
               config.layers, count, config.layers + 2);
  const std::vector<double> costs = costs_of(config, seq_length);
  const std::size_t items = costs.size(), chunks = static_cast<std::size_t>(count);
  std::vector<double> sums(items + 1);
  for (std::size_t i = 0; i < items; ++i) sums[i + 1] = sums[i] + costs[i];

  // Over all cuts of the first i items into c chunks: the smallest largest chunk; then, with no chunk above
  // that of the whole, the smallest sum of squares, and where its last chunk begins.
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  const auto table = [&](double value) {
    return std::vector<std::vector<double>>(chunks + 1, std::vector<double>(items + 1, value));
  };
  auto largest = table(kInfinite), squares = table(kInfinite);
  std::vector<std::vector<std::size_t>> begin(chunks + 1, std::vector<std::size_t>(items + 1));
  largest[0][0] = squares[0][0] = 0;
  for (std::size_t c = 1; c <= chunks; ++c)
    for (std::size_t i = c; i <= items; ++i)
      for (std::size_t b = c - 1; b < i; ++b)
        largest[c][i] = std::min(largest[c][i], std::max(largest[c - 1][b], sums[i] - sums[b]));
  const double bound = largest[chunks][items] * (1 + 1e-12);
  for (std::size_t c = 1; c <= chunks; ++c)
    for (std::size_t i = c; i <= items; ++i)
      for (std::size_t b = c - 1; b < i; ++b) {
        const double cost = sums[i] - sums[b];
        if (cost > bound || squares[c - 1][b] + cost * cost >= squares[c][i]) continue;
        squares[c][i] = squares[c - 1][b] + cost * cost;
        begin[c][i] = b;
      }

  std::vector<Chunk> result(chunks);
  std::size_t end = items;
  for (std::size_t c = chunks; c-- > 0;) {
    const std::size_t first = begin[c + 1][end];
    // Item 0 is the embedding, the last one the head.
    result[c] = {.first_layer = static_cast<std::int64_t>(std::max<std::size_t>(first, 1)) - 1,
                 .last_layer = static_cast<std::int64_t>(std::min(end, items - 1)) - 1,
                 .embedding = first == 0,
                 .head = end == items};
    end = first;
  }
  return result;
}

}  // namespace verne
