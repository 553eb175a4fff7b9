#pragma once
#include <algorithm>
#include <array>

#include "cases.hpp"
#include "verne/ops/attention.hpp"

namespace verne::testing {

struct AttentionShape {
  std::vector<std::int64_t> lengths;  ///< queries of each document
  std::int64_t query_heads, kv_heads, head_dim;
  std::int64_t window = 0;
  DocumentLayout::Kind kind = DocumentLayout::Kind::packed;
  /// Strided: q, k, v are slices of one merged buffer (of one for q and one for k and v where those are not
  /// the same tokens), and so are their gradients.
  Rows rows = Rows::contiguous;
  std::int64_t value_dim = 0;  ///< 0: head_dim
  /// Keys of each document before its first query; empty: none.
  std::vector<std::int64_t> earlier = {};
  /// Keys of no document before each document's, and behind the last one's; empty: none. All but the first
  /// and the last are equal where documents are uniform, and the first is 0.
  std::vector<std::int64_t> gaps = {};

  std::int64_t value_width() const { return value_dim > 0 ? value_dim : head_dim; }
  bool self() const { return earlier.empty() && gaps.empty(); }
};

/// A shape's documents as numbers.
struct AttentionDocuments {
  Values query_starts{0}, key_begins, key_ends;
  std::int64_t queries = 0, keys = 0, most_queries = 0, most_keys = 0;

  explicit AttentionDocuments(const AttentionShape& shape) {
    const auto entry = [](const std::vector<std::int64_t>& values, std::size_t i) {
      return values.empty() ? 0 : values.at(i);
    };
    for (std::size_t i = 0; i < shape.lengths.size(); ++i) {
      const std::int64_t count = shape.lengths[i], seen = count + entry(shape.earlier, i);
      queries += count;
      query_starts.push_back(static_cast<double>(queries));
      keys += entry(shape.gaps, i);
      key_begins.push_back(static_cast<double>(keys));
      keys += seen;
      key_ends.push_back(static_cast<double>(keys));
      most_queries = std::max(most_queries, count);
      most_keys = std::max(most_keys, seen);
    }
    keys += entry(shape.gaps, shape.lengths.size());
  }

  AttentionLayout layout(Workbench& bench, const AttentionShape& shape) const {
    const std::int64_t count = std::ssize(shape.lengths);
    if (shape.kind == DocumentLayout::Kind::uniform) {
      DocumentLayout key = uniform_documents(count, most_keys);
      if (count > 1) key.pitch = static_cast<std::int64_t>(key_begins[1] - key_begins[0]);
      return {uniform_documents(count, most_queries), key};
    }
    const DocumentLayout query = packed_documents(bench.integers(query_starts), most_queries);
    if (shape.self()) return self_attention(query);
    return {query,
            {.kind = DocumentLayout::Kind::packed,
             .count = count,
             .max_length = most_keys,
             .pitch = 0,
             .begins = bench.integers(key_begins),
             .ends = bench.integers(key_ends)}};
  }
};

/// Heads [tokens, heads, width] side by side in rows of one buffer, or each in rows of its own.
inline std::vector<Tensor> make_heads(
    std::int64_t tokens, const std::vector<std::pair<std::int64_t, std::int64_t>>& heads_and_widths,
    Rows rows, const std::function<Tensor(Shape)>& make) {
  std::int64_t merged = 0, first = 0;
  for (const auto& [heads, width] : heads_and_widths) merged += heads * width;
  Tensor buffer;
  if (rows == Rows::strided) buffer = make({tokens, merged});
  std::vector<Tensor> tensors;
  for (const auto& [heads, width] : heads_and_widths) {
    const Shape shape{tokens, heads, width};
    tensors.push_back(rows == Rows::strided ? buffer.columns(first, heads * width).view(shape) : make(shape));
    first += heads * width;
  }
  return tensors;
}

/// q, k, v of a shape, or their gradients.
inline std::array<Tensor, 3> make_qkv(const AttentionShape& shape, const AttentionDocuments& documents,
                                      const std::function<Tensor(Shape)>& make) {
  const std::pair<std::int64_t, std::int64_t> q{shape.query_heads, shape.head_dim},
      k{shape.kv_heads, shape.head_dim}, v{shape.kv_heads, shape.value_width()};
  if (shape.self()) {
    const std::vector<Tensor> all = make_heads(documents.queries, {q, k, v}, shape.rows, make);
    return {all[0], all[1], all[2]};
  }
  // A gap behind the queries' rows too.
  const Tensor queries = make_heads(documents.queries, {q, {1, 8}}, shape.rows, make).front();
  const std::vector<Tensor> keys = make_heads(documents.keys, {k, v}, shape.rows, make);
  return {queries, keys[0], keys[1]};
}

inline std::vector<Output> run_attention(Queue& queue, DType type, const AttentionShape& shape) {
  Workbench bench(queue);
  const AttentionDocuments documents(shape);
  const AttentionLayout layout = documents.layout(bench, shape);
  const Shape values{documents.queries, shape.query_heads, shape.value_width()};
  std::uint32_t seed = 0;
  const auto [q, k, v] = make_qkv(shape, documents, [&](Shape s) { return bench.random(type, s, ++seed); });
  const Tensor out = bench.poisoned(type, values);
  const Tensor log_sum_exp = bench.poisoned(statistics_type(type), {documents.queries * shape.query_heads});
  const double scale = 1 / std::sqrt(static_cast<double>(shape.head_dim));
  bench.run(AttentionForward{.out = out,
                             .log_sum_exp = log_sum_exp,
                             .q = q,
                             .k = k,
                             .v = v,
                             .layout = layout,
                             .scale = scale,
                             .window = shape.window});
  const Tensor dout = bench.random(type, values, 100);
  const auto [dq, dk, dv] = make_qkv(shape, documents, [&](Shape s) { return bench.poisoned(type, s); });
  bench.run(AttentionBackward{.dq = dq,
                              .dk = dk,
                              .dv = dv,
                              .dout = dout,
                              .q = q,
                              .k = k,
                              .v = v,
                              .out = out,
                              .log_sum_exp = log_sum_exp,
                              .layout = layout,
                              .scale = scale,
                              .window = shape.window});
  std::vector<Output> outputs{
      {"out", bench.values(out)}, {"log_sum_exp", bench.values(log_sum_exp)}, {"dv", bench.values(dv)}};
  // Where every query sees one key alone, its probability is 1 and the scores' gradient nothing but rounding.
  if (shape.window != 1 && documents.most_keys > 1) {
    outputs.push_back({"dq", bench.values(dq)});
    outputs.push_back({"dk", bench.values(dk)});
  }
  bench.expect_guards_intact();
  return outputs;
}

inline std::vector<OpCase> attention_cases_of(
    const std::vector<std::pair<std::string, AttentionShape>>& shapes) {
  std::vector<OpCase> cases;
  for (const auto& [name, shape] : shapes) {
    cases.push_back({name, {DType::f32, DType::bf16}, [shape = shape](Queue& queue, DType type) {
                       return run_attention(queue, type, shape);
                     }});
  }
  return cases;
}

/// Keys, some of them in documents, and not one query: gradients of zeros.
inline std::vector<Output> run_attention_without_queries(Queue& queue, DType type) {
  Workbench bench(queue);
  const auto none = [](DType dtype, Shape shape) { return Tensor(nullptr, dtype, shape); };
  const Tensor q = none(type, {0, 4, 8}), values = none(type, {0, 4, 16}),
               statistics = none(statistics_type(type), {0});
  const Tensor k = bench.random(type, {9, 2, 8}, 1), v = bench.random(type, {9, 2, 16}, 2, 1, 40);
  const Tensor dk = bench.poisoned(type, k.shape()), dv = bench.poisoned(type, v.shape(), v.stride());
  const AttentionLayout layout{packed_documents(bench.integers({0, 0, 0}), 0),
                               {.kind = DocumentLayout::Kind::packed,
                                .count = 2,
                                .max_length = 4,
                                .pitch = 0,
                                .begins = bench.integers({1, 5}),
                                .ends = bench.integers({5, 7})}};
  run(queue,
      AttentionForward{.out = values, .log_sum_exp = statistics, .q = q, .k = k, .v = v, .layout = layout});
  run(queue, AttentionBackward{.dq = q,
                               .dk = dk,
                               .dv = dv,
                               .dout = values,
                               .q = q,
                               .k = k,
                               .v = v,
                               .out = values,
                               .log_sum_exp = statistics,
                               .layout = layout});
  std::vector<Output> outputs{{"dk", bench.values(dk)}, {"dv", bench.values(dv)}};
  bench.expect_guards_intact();
  return outputs;
}

inline std::vector<OpCase> attention_cases() {
  using enum DocumentLayout::Kind;
  using enum Rows;
  std::vector<OpCase> cases = attention_cases_of({
      {"attention_uniform", {{64, 64}, 4, 4, 64, 0, uniform}},
      {"attention_uniform_gqa_merged", {{33, 33, 33}, 6, 2, 128, 0, uniform, strided}},
      {"attention_uniform_window", {{229}, 4, 2, 64, 32, uniform, strided}},
      {"attention_uniform_one_token", {{1}, 2, 1, 64, 0, uniform}},
      {"attention_uniform_long", {{333}, 2, 1, 80, 0, uniform}},
      {"attention_packed_gqa_merged", {{33, 1, 71, 1, 128}, 4, 2, 64, 0, packed, strided}},
      {"attention_packed_empty", {{0, 17, 0, 0, 130, 5, 0, 0, 0}, 8, 2, 128, 0, packed, strided}},
      {"attention_packed_window", {{100, 3, 60, 0}, 4, 1, 64, 16, packed}},
      {"attention_packed_odd_head_dim", {{9, 40, 2}, 3, 3, 20, 0, packed}},
      {"attention_packed_window_of_one", {{5, 33}, 2, 2, 64, 1, packed}},
      // Values of another width than keys.
      {"attention_uniform_wide_values", {{70, 70}, 4, 2, 64, 0, uniform, strided, 128}},
      {"attention_packed_narrow_values", {{33, 1, 71, 0, 40}, 4, 2, 192, 0, packed, strided, 128}},
      {"attention_packed_odd_widths", {{9, 40, 2}, 6, 3, 20, 7, packed, contiguous, 13}},
      // The last or a middle chunk of each row; rows of keys that are longer than what it sees.
      {"attention_uniform_chunk", {{64, 64}, 4, 2, 64, 0, uniform, strided, 0, {128, 128}}},
      {"attention_uniform_odd_chunk", {{47}, 4, 4, 128, 0, uniform, contiguous, 0, {82}, {0, 39}}},
      {"attention_uniform_chunk_in_longer_rows",
       {{40, 40, 40}, 6, 2, 64, 0, uniform, strided, 0, {60, 60, 60}, {0, 28, 28, 28}}},
      {"attention_uniform_first_chunk_in_longer_rows",
       {{64, 64}, 4, 2, 64, 0, uniform, strided, 0, {0, 0}, {0, 64, 64}}},
      {"attention_uniform_chunk_window",
       {{50, 50}, 4, 2, 64, 37, uniform, strided, 0, {150, 150}, {0, 9, 0}}},
      {"attention_uniform_one_query", {{1, 1, 1}, 4, 2, 64, 0, uniform, strided, 0, {70, 70, 70}}},
      // A chunk of packed rows: its first document began before it, the others in it.
      {"attention_packed_chunk", {{30, 1, 97}, 4, 2, 64, 0, packed, strided, 0, {130, 0, 0}}},
      {"attention_packed_chunks_in_gaps",
       {{0, 45, 20, 0, 1, 70},
        4,
        2,
        128,
        0,
        packed,
        strided,
        0,
        {0, 33, 0, 0, 64, 5},
        {19, 0, 7, 1, 3, 0, 50}}},
      // A document without queries in the chunk, with keys.
      {"attention_packed_unseen_documents",
       {{20, 0, 44, 0}, 4, 1, 64, 0, packed, contiguous, 0, {0, 35, 10, 12}, {0, 0, 4, 0, 0}}},
      // The window hides whole tiles of earlier keys.
      {"attention_packed_chunk_window",
       {{40, 3, 90, 1}, 4, 2, 64, 24, packed, strided, 0, {200, 90, 0, 33}, {5, 0, 0, 2, 70}}},
      {"attention_packed_chunk_wide_window",
       {{40, 60}, 2, 1, 64, 100, packed, strided, 0, {80, 20}, {0, 11, 0}}},
      {"attention_packed_chunk_window_of_one", {{4, 33}, 2, 2, 64, 1, packed, contiguous, 0, {9, 70}}},
      {"attention_packed_chunk_narrow_values",
       {{33, 50}, 4, 2, 192, 0, packed, strided, 128, {40, 0}, {0, 13, 6}}},
      {"attention_packed_chunk_odd_widths", {{7, 21}, 6, 2, 20, 11, packed, strided, 13, {30, 2}, {1, 1, 1}}},
  });
  cases.push_back({"attention_without_queries", {DType::f32, DType::bf16}, run_attention_without_queries});
  return cases;
}

}  // namespace verne::testing
