#include "verne/ops/matmul.hpp"

#include "fixture.hpp"
#include "verne/ops/run.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {
namespace {

double at(const Values& x, Transpose transpose, std::int64_t rows, std::int64_t columns, std::int64_t r,
          std::int64_t c) {
  return x[static_cast<std::size_t>(transpose == Transpose::yes ? c * rows + r : r * columns + c)];
}

struct Product {
  std::int64_t m, n, k;
};

class MatmulTest : public ::testing::TestWithParam<Product> {
 protected:
  CpuQueue queue{2};
};

TEST_P(MatmulTest, IsTheSumOfProducts) {
  const auto [m, n, k] = GetParam();
  for (const DType type : {DType::f64, DType::f32, DType::bf16}) {
    for (const auto ta : {Transpose::no, Transpose::yes}) {
      for (const auto tb : {Transpose::no, Transpose::yes}) {
        for (const auto accumulate : {Accumulate::no, Accumulate::yes}) {
          for (const std::int64_t gap : {0, 5}) {
            Workbench bench(queue);
            const Shape a_shape = ta == Transpose::yes ? Shape{k, m} : Shape{m, k};
            const Shape b_shape = tb == Transpose::yes ? Shape{n, k} : Shape{k, n};
            const Tensor a = bench.random(type, a_shape, 1, 1, a_shape[1] + gap);
            const Tensor b = bench.random(type, b_shape, 2, 1, b_shape[1] + gap);
            const DType out = type == DType::bf16 && gap == 0 ? DType::f32 : type;
            Tensor d = bench.random(out, {m, n}, 3, 1, n + gap);
            const Values av = bench.values(a), bv = bench.values(b), before = bench.values(d);
            if (accumulate == Accumulate::no) d = bench.poisoned(out, {m, n}, n + gap);
            run(queue,
                Matmul{
                    .d = d, .a = a, .b = b, .transpose_a = ta, .transpose_b = tb, .accumulate = accumulate});
            Values expected;
            for (std::int64_t i = 0; i < m; ++i) {
              for (std::int64_t j = 0; j < n; ++j) {
                double sum = accumulate == Accumulate::yes ? before[static_cast<std::size_t>(i * n + j)] : 0;
                for (std::int64_t l = 0; l < k; ++l) sum += at(av, ta, m, k, i, l) * at(bv, tb, k, n, l, j);
                expected.push_back(sum);
              }
            }
            expect_close(bench.values(d), expected, tolerance(out).formula,
                         fmt::format("{} gap {}", name(type), gap));
            bench.expect_guards_intact();
          }
        }
      }
    }
  }
}

TEST_P(MatmulTest, AddsABiasOnce) {
  const auto [m, n, k] = GetParam();
  for (const auto& [type, out] : {std::pair{DType::f64, DType::f64},
                                  {DType::f32, DType::f32},
                                  {DType::bf16, DType::bf16},
                                  {DType::bf16, DType::f32}}) {
    for (const std::int64_t gap : {0, 5}) {
      Workbench bench(queue);
      const Tensor a = bench.random(type, {m, k}, 1, 1, k + gap),
                   b = bench.random(type, {n, k}, 2, 1, k + gap), bias = bench.random(type, {n}, 3);
      const Tensor d = bench.poisoned(out, {m, n}, n + gap);
      run(queue, Matmul{.d = d, .a = a, .b = b, .bias = bias, .transpose_b = Transpose::yes});
      const Values av = bench.values(a), bv = bench.values(b), cv = bench.values(bias);
      Values expected;
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          double sum = cv[static_cast<std::size_t>(j)];
          for (std::int64_t l = 0; l < k; ++l)
            sum += at(av, Transpose::no, m, k, i, l) * at(bv, Transpose::yes, k, n, l, j);
          expected.push_back(sum);
        }
      }
      expect_close(bench.values(d), expected, tolerance(out).formula,
                   fmt::format("{} to {} gap {}", name(type), name(out), gap));
      bench.expect_guards_intact();
    }
  }
}

TEST(Matmul, RoundsWithTheBias) {
  CpuQueue queue;
  Workbench bench(queue);
  // The product 1 + 2^-8 is half a step of bfloat16 and would round to 1; with the bias it is 1 + 2^-7.
  const Tensor a = bench.of(DType::bf16, {1, 2}, {1, 0.00390625}), b = bench.of(DType::bf16, {2, 1}, {1, 1});
  const Tensor bias = bench.of(DType::bf16, {1}, {0.00390625}), d = bench.poisoned(DType::bf16, {1, 1});
  run(queue, Matmul{.d = d, .a = a, .b = b, .bias = bias});
  EXPECT_EQ(bench.values(d), Values{1.0078125});
}

// 700 rows or columns cross tiles; a depth of 1100 crosses the blocks in which bfloat16 is widened; 0 is an
// empty matrix.
INSTANTIATE_TEST_SUITE_P(Shapes, MatmulTest,
                         ::testing::Values(Product{1, 1, 1}, Product{3, 5, 7}, Product{2, 3, 0},
                                           Product{0, 3, 2}, Product{700, 3, 5}, Product{130, 700, 9},
                                           Product{3, 2, 1100}));

TEST(MatmulCheck, NamesWhatDoesNotFit) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor a = bench.random(DType::f32, {2, 3}, 1), b = bench.random(DType::f32, {4, 5}, 2);
  const Tensor d = bench.poisoned(DType::f32, {2, 5});
  try {
    run(queue, Matmul{.d = d, .a = a, .b = b});
    FAIL() << "3 columns times 4 rows";
  } catch (const InternalError& error) {
    EXPECT_STREQ(error.what(), "Matmul: b has the shape [4, 5], not [3, 5]");
  }
  const Tensor narrow = bench.random(DType::bf16, {3, 5}, 2);
  EXPECT_THROW(run(queue, Matmul{.d = d, .a = a, .b = narrow}), InternalError);
  const Tensor good = bench.random(DType::f32, {3, 5}, 2), wrong = bench.poisoned(DType::bf16, {2, 5});
  EXPECT_THROW(run(queue, Matmul{.d = wrong, .a = a, .b = good}), InternalError);
  EXPECT_THROW(run(queue, Matmul{.d = Tensor{}, .a = a, .b = good}), InternalError);
  const Tensor bias = bench.random(DType::f32, {5}, 3), narrow_bias = bench.random(DType::bf16, {5}, 3);
  EXPECT_NO_THROW(run(queue, Matmul{.d = d, .a = a, .b = good, .bias = bias}));
  EXPECT_THROW(run(queue, Matmul{.d = d, .a = a, .b = good, .bias = narrow_bias}), InternalError);
  EXPECT_THROW(run(queue, Matmul{.d = d, .a = a, .b = good, .bias = bench.random(DType::f32, {2}, 3)}),
               InternalError);
  EXPECT_THROW(run(queue, Matmul{.d = d, .a = a, .b = good, .bias = bias, .accumulate = Accumulate::yes}),
               InternalError);
}

TEST(MatmulCost, CountsTwoOperationsAProduct) {
  MetaTrace trace;
  MetaQueue queue(trace, "compute");
  const Buffer a(queue, DType::bf16, {6, 10}, MemoryKind::scratch),
      b(queue, DType::bf16, {4, 10}, MemoryKind::scratch);
  const Buffer d(queue, DType::f32, {6, 4}, MemoryKind::scratch);
  run(queue, Matmul{.d = d.tensor(),
                    .a = a.tensor(),
                    .b = b.tensor(),
                    .transpose_b = Transpose::yes,
                    .accumulate = Accumulate::yes});
  EXPECT_EQ(trace.total().flops, 2.0 * 6 * 4 * 10);
  EXPECT_EQ(trace.total().bytes, 2.0 * (60 + 40) + 2 * 4.0 * 24);
}

TEST(MatmulCost, CountsTheBias) {
  MetaTrace trace;
  MetaQueue queue(trace, "compute");
  const Buffer a(queue, DType::bf16, {6, 10}, MemoryKind::scratch),
      b(queue, DType::bf16, {10, 4}, MemoryKind::scratch), bias(queue, DType::bf16, {4}, MemoryKind::scratch),
      d(queue, DType::bf16, {6, 4}, MemoryKind::scratch);
  run(queue, Matmul{.d = d.tensor(), .a = a.tensor(), .b = b.tensor(), .bias = bias.tensor()});
  EXPECT_EQ(trace.total().flops, 2.0 * 6 * 4 * 10 + 6 * 4);
  EXPECT_EQ(trace.total().bytes, 2.0 * (60 + 40 + 4 + 24));
}

TEST(MatmulAccess, ListsOperandsWithTheirScales) {
  CpuQueue queue;
  Workbench bench(queue);
  Operand a = bench.random(DType::f32, {6, 10}, 1), b = bench.random(DType::f32, {4, 10}, 2);
  a.scale = bench.random(DType::f32, {6}, 3);
  const Tensor d = bench.random(DType::f32, {6, 4}, 4);
  const auto addresses = [](const std::vector<Tensor>& tensors) {
    std::vector<std::byte*> all;
    for (const Tensor& tensor : tensors) all.push_back(tensor.raw());
    return all;
  };
  const Access over = Matmul{.d = d, .a = a, .b = b, .transpose_b = Transpose::yes}.access();
  EXPECT_EQ(addresses(over.reads), (std::vector{a.data.raw(), a.scale.raw(), b.data.raw()}));
  EXPECT_EQ(addresses(over.writes), std::vector{d.raw()});
  const Access adding =
      Matmul{.d = d, .a = a, .b = b, .transpose_b = Transpose::yes, .accumulate = Accumulate::yes}.access();
  EXPECT_EQ(addresses(adding.reads), (std::vector{a.data.raw(), a.scale.raw(), b.data.raw(), d.raw()}));
  EXPECT_EQ(addresses(adding.writes), std::vector{d.raw()});
}

}  // namespace
}  // namespace verne::testing
