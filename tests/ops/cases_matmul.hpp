#pragma once
#include "cases.hpp"
#include "verne/ops/attention.hpp"
#include "verne/ops/matmul.hpp"

namespace verne::testing {

enum class Rows { contiguous, strided };

struct MatmulShape {
  std::int64_t m, n, k;
  Transpose transpose_a = Transpose::no, transpose_b = Transpose::no;
  Accumulate accumulate = Accumulate::no;
  Rows rows = Rows::contiguous;
};

enum class Result { storage, float32 };

inline std::vector<Output> run_matmul(Queue& queue, DType type, const MatmulShape& shape, Result result) {
  Workbench bench(queue);
  const bool strided = shape.rows == Rows::strided;
  const auto matrix = [&](Transpose transpose, std::int64_t rows, std::int64_t columns, std::uint32_t seed) {
    if (transpose == Transpose::yes) std::swap(rows, columns);
    return bench.random(type, {rows, columns}, seed, 1, strided ? columns + 24 : 0);
  };
  const Tensor a = matrix(shape.transpose_a, shape.m, shape.k, 1),
               b = matrix(shape.transpose_b, shape.k, shape.n, 2);
  const DType out = result == Result::float32 && type == DType::bf16 ? DType::f32 : type;
  const std::int64_t stride = strided ? shape.n + 8 : 0;
  const Tensor d = shape.accumulate == Accumulate::yes ? bench.random(out, {shape.m, shape.n}, 3, 1, stride)
                                                       : bench.poisoned(out, {shape.m, shape.n}, stride);
  bench.run(Matmul{.d = d,
                   .a = a,
                   .b = b,
                   .transpose_a = shape.transpose_a,
                   .transpose_b = shape.transpose_b,
                   .accumulate = shape.accumulate});
  std::vector<Output> outputs{{"d", bench.values(d)}};
  bench.expect_guards_intact();
  return outputs;
}

inline std::vector<OpCase> matmul_cases() {
  std::vector<OpCase> cases;
  const auto add = [&](const MatmulShape& s, Result result) {
    cases.push_back(
        {fmt::format("matmul_{}x{}x{}_{}{}{}{}{}", s.m, s.n, s.k, s.transpose_a == Transpose::yes ? "t" : "n",
                     s.transpose_b == Transpose::yes ? "t" : "n",
                     s.accumulate == Accumulate::yes ? "_adding" : "",
                     s.rows == Rows::strided ? "_strided" : "", result == Result::float32 ? "_to_f32" : ""),
         {DType::f32, DType::bf16},
         [=](Queue& queue, DType type) { return run_matmul(queue, type, s, result); }});
  };
  using enum Transpose;
  for (const auto& [m, n, k] :
       {std::array<std::int64_t, 3>{64, 64, 64}, {33, 72, 232}, {229, 512, 64}, {1, 136, 1024}, {8, 8, 8}}) {
    add({m, n, k, no, yes}, Result::storage);
    add({m, n, k, no, no}, Result::storage);
    add({m, n, k, yes, no, Accumulate::yes}, Result::float32);
    add({m, n, k, yes, yes, Accumulate::no, Rows::strided}, Result::float32);
    add({m, n, k, no, yes, Accumulate::yes, Rows::strided}, Result::storage);
  }
  // Odd extents: no vector access is aligned, no library kernel fits.
  add({71, 229, 3, no, yes}, Result::storage);
  add({3, 71, 229, no, no, Accumulate::yes}, Result::float32);
  add({1, 1, 1, yes, yes}, Result::storage);
  return cases;
}

struct AttentionShape {
  std::vector<std::int64_t> lengths;  ///< of the documents, empty ones at the end allowed
  std::int64_t query_heads, kv_heads, head_dim;
  std::int64_t window = 0;
  DocumentLayout::Kind kind = DocumentLayout::Kind::packed;
  Rows rows =
      Rows::contiguous;  ///< strided: q, k, v are slices of one merged buffer, and so are their gradients
};

inline std::vector<Output> run_attention(Queue& queue, DType type, const AttentionShape& shape) {
  Workbench bench(queue);
  Values starts{0};
  std::int64_t longest = 0;
  for (const std::int64_t length : shape.lengths) {
    starts.push_back(starts.back() + static_cast<double>(length));
    longest = std::max(longest, length);
  }
  const auto tokens = static_cast<std::int64_t>(starts.back());
  const std::int64_t q_heads = shape.query_heads, kv_heads = shape.kv_heads, dim = shape.head_dim;
  const DocumentLayout documents{.kind = shape.kind,
                                 .count = std::ssize(shape.lengths),
                                 .max_length = longest,
                                 .starts = bench.integers(starts)};
  const std::int64_t merged = (q_heads + 2 * kv_heads) * dim;
  const auto slices = [&](const Tensor& qkv) {
    return std::array<Tensor, 3>{
        qkv.columns(0, q_heads * dim).view({tokens, q_heads, dim}),
        qkv.columns(q_heads * dim, kv_heads * dim).view({tokens, kv_heads, dim}),
        qkv.columns((q_heads + kv_heads) * dim, kv_heads * dim).view({tokens, kv_heads, dim})};
  };
  const auto three = [&](const auto& make) {
    if (shape.rows == Rows::strided) return slices(make(Shape{tokens, merged}, 1));
    return std::array<Tensor, 3>{make(Shape{tokens, q_heads, dim}, 1), make(Shape{tokens, kv_heads, dim}, 2),
                                 make(Shape{tokens, kv_heads, dim}, 3)};
  };
  const auto [q, k, v] = three([&](Shape s, std::uint32_t seed) { return bench.random(type, s, seed); });
  const Tensor out = bench.poisoned(type, {tokens, q_heads, dim});
  const Tensor log_sum_exp = bench.poisoned(statistics_type(type), {tokens * q_heads});
  const double scale = 1 / std::sqrt(static_cast<double>(dim));
  bench.run(AttentionForward{.out = out,
                             .log_sum_exp = log_sum_exp,
                             .q = q,
                             .k = k,
                             .v = v,
                             .documents = documents,
                             .scale = scale,
                             .window = shape.window});
  const Tensor dout = bench.random(type, {tokens, q_heads, dim}, 4);
  const auto [dq, dk, dv] = three([&](Shape s, std::uint32_t) { return bench.poisoned(type, s); });
  bench.run(AttentionBackward{.dq = dq,
                              .dk = dk,
                              .dv = dv,
                              .dout = dout,
                              .q = q,
                              .k = k,
                              .v = v,
                              .out = out,
                              .log_sum_exp = log_sum_exp,
                              .documents = documents,
                              .scale = scale,
                              .window = shape.window});
  std::vector<Output> outputs{{"out", bench.values(out)}, {"dv", bench.values(dv)}};
  // Where every query sees one key alone, its probability is 1 and the scores' gradient nothing but rounding.
  if (shape.window != 1 && longest > 1) {
    outputs.push_back({"dq", bench.values(dq)});
    outputs.push_back({"dk", bench.values(dk)});
  }
  bench.expect_guards_intact();
  return outputs;
}

inline std::vector<OpCase> attention_cases() {
  using enum DocumentLayout::Kind;
  const std::vector<std::pair<std::string, AttentionShape>> shapes{
      {"uniform", {{64, 64}, 4, 4, 64, 0, uniform}},
      {"uniform_gqa_merged", {{33, 33, 33}, 6, 2, 128, 0, uniform, Rows::strided}},
      {"uniform_window", {{229}, 4, 2, 64, 32, uniform, Rows::strided}},
      {"uniform_one_token", {{1}, 2, 1, 64, 0, uniform}},
      {"packed_gqa_merged", {{33, 1, 71, 1, 128}, 4, 2, 64, 0, packed, Rows::strided}},
      {"packed_empty_at_end", {{17, 130, 5, 0, 0, 0}, 8, 2, 128, 0, packed, Rows::strided}},
      {"packed_window", {{100, 3, 60, 0}, 4, 1, 64, 16, packed}},
      {"packed_odd_head_dim", {{9, 40, 2}, 3, 3, 20, 0, packed}},
      {"packed_window_of_one", {{5, 33}, 2, 2, 64, 1, packed}},
      {"uniform_long", {{333}, 2, 1, 80, 0, uniform}},
  };
  std::vector<OpCase> cases;
  for (const auto& [name, shape] : shapes) {
    cases.push_back(
        {"attention_" + name, {DType::f32, DType::bf16}, [shape = shape](Queue& queue, DType type) {
           return run_attention(queue, type, shape);
         }});
  }
  return cases;
}

}  // namespace verne::testing
