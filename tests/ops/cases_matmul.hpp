#pragma once
#include "cases.hpp"
#include "verne/ops/matmul.hpp"

namespace verne::testing {

enum class Bias { none, added };

struct MatmulShape {
  std::int64_t m, n, k;
  Transpose transpose_a = Transpose::no, transpose_b = Transpose::no;
  Accumulate accumulate = Accumulate::no;
  Rows rows = Rows::contiguous;
  Bias bias = Bias::none;
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
                   .bias = shape.bias == Bias::added ? bench.random(type, {shape.n}, 4) : Tensor{},
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
        {fmt::format("matmul_{}x{}x{}_{}{}{}{}{}{}", s.m, s.n, s.k,
                     s.transpose_a == Transpose::yes ? "t" : "n", s.transpose_b == Transpose::yes ? "t" : "n",
                     s.accumulate == Accumulate::yes ? "_adding" : "",
                     s.rows == Rows::strided ? "_strided" : "", s.bias == Bias::added ? "_bias" : "",
                     result == Result::float32 ? "_to_f32" : ""),
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
    add({m, n, k, no, yes, Accumulate::no, Rows::contiguous, Bias::added}, Result::storage);
    add({m, n, k, no, no, Accumulate::no, Rows::strided, Bias::added}, Result::storage);
    add({m, n, k, no, yes, Accumulate::no, Rows::contiguous, Bias::added}, Result::float32);
  }
  // Odd extents: no vector access is aligned, no library kernel fits.
  add({71, 229, 3, no, yes}, Result::storage);
  add({3, 71, 229, no, no, Accumulate::yes}, Result::float32);
  add({1, 1, 1, yes, yes}, Result::storage);
  add({71, 229, 3, no, yes, Accumulate::no, Rows::contiguous, Bias::added}, Result::storage);
  add({3, 71, 229, yes, no, Accumulate::no, Rows::strided, Bias::added}, Result::float32);
  add({33, 72, 0, no, no, Accumulate::no, Rows::strided, Bias::added}, Result::storage);  // the bias alone
  return cases;
}

}  // namespace verne::testing
