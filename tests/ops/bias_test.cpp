#include "verne/ops/bias.hpp"

#include "fixture.hpp"
#include "verne/ops/matmul.hpp"
#include "verne/ops/run.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {
namespace {

TEST(AddBias, AddsToEveryRowAndLeavesTheGaps) {
  CpuQueue queue(2);
  for (const auto& [y_type, bias_type] : {std::pair{DType::f64, DType::f64},
                                          {DType::f32, DType::f32},
                                          {DType::bf16, DType::bf16},
                                          {DType::f32, DType::bf16}}) {
    for (const std::int64_t gap : {0, 3}) {
      Workbench bench(queue);
      const std::int64_t rows = 5, width = 7;
      const Tensor y = bench.random(y_type, {rows, width}, 1, 1, width + gap),
                   bias = bench.random(bias_type, {width}, 2);
      Values expected = bench.values(y);
      const Values added = bench.values(bias);
      for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += added[i % added.size()];
      run(queue, AddBias{.y = y, .bias = bias});
      expect_close(bench.values(y), expected, tolerance(y_type).formula, fmt::format("gap {}", gap));
      EXPECT_EQ(bench.values(bias), added);
      bench.expect_guards_intact();
    }
  }
}

TEST(AddBias, RoundsToNearestEven) {
  CpuQueue queue;
  Workbench bench(queue);
  // Half a step of bfloat16 more than 1 goes back to 1, than its neighbour on to the next even number.
  const Tensor y = bench.of(DType::bf16, {1, 2}, {1, 1.0078125}),
               bias = bench.of(DType::bf16, {2}, {0.00390625, 0.00390625});
  run(queue, AddBias{.y = y, .bias = bias});
  EXPECT_EQ(bench.values(y), (Values{1, 1.015625}));
}

struct Sums {
  std::int64_t rows, width;
};
class BiasBackwardTest : public ::testing::TestWithParam<Sums> {};

TEST_P(BiasBackwardTest, SumsOverRows) {
  const auto [rows, width] = GetParam();
  CpuQueue queue(2);
  for (const DType type : {DType::f64, DType::f32, DType::bf16}) {
    const DType sums = type == DType::f64 ? DType::f64 : DType::f32;
    for (const Accumulate accumulate : {Accumulate::no, Accumulate::yes}) {
      for (const std::int64_t gap : {0, 5}) {
        Workbench bench(queue);
        const Tensor dy = bench.random(type, {rows, width}, 1, 1, width + gap);
        const bool adds = accumulate == Accumulate::yes;
        const Tensor dbias = adds ? bench.random(sums, {width}, 2) : bench.poisoned(sums, {width});
        Values expected = adds ? bench.values(dbias) : Values(static_cast<std::size_t>(width));
        const Values terms = bench.values(dy);
        for (std::size_t i = 0; i < terms.size(); ++i) expected[i % expected.size()] += terms[i];
        run(queue, BiasBackward{.dbias = dbias, .accumulate = accumulate, .dy = dy});
        expect_close(bench.values(dbias), expected, tolerance(sums).formula, fmt::format("gap {}", gap));
        bench.expect_guards_intact();
      }
    }
  }
}
// More rows than the blocks that are summed apart; none at all.
INSTANTIATE_TEST_SUITE_P(Shapes, BiasBackwardTest,
                         ::testing::Values(Sums{1, 1}, Sums{3, 5}, Sums{1500, 3}, Sums{0, 4}));

TEST(BiasBackward, IsTheGradient) {
  CpuQueue queue(2);
  Workbench bench(queue);
  const std::int64_t m = 4, n = 3, k = 5;
  const Tensor a = bench.random(DType::f64, {m, k}, 1), b = bench.random(DType::f64, {k, n}, 2);
  const Tensor bias = bench.random(DType::f64, {1, n}, 3), y = bench.random(DType::f64, {m, n}, 4);
  const Tensor dy = bench.random(DType::f64, {m, n}, 5), dbias = bench.poisoned(DType::f64, {n});
  const Values start = bench.values(y), weights = bench.values(dy);
  run(queue, BiasBackward{.dbias = dbias, .dy = dy});
  const Values analytic = bench.values(dbias);
  const auto through_matmul = [&] {
    run(queue, Matmul{.d = y, .a = a, .b = b, .bias = bias.view({n})});
    return dot(bench.values(y), weights);
  };
  expect_gradient(bias, analytic, through_matmul, "through Matmul");
  const auto through_add = [&] {
    queue.upload(y, std::as_bytes(std::span(start)));
    run(queue, AddBias{.y = y, .bias = bias.view({n})});
    return dot(bench.values(y), weights);
  };
  expect_gradient(bias, analytic, through_add, "through AddBias");
}

TEST(BiasCheck, NamesWhatIsWrong) {
  CpuQueue queue;
  Workbench bench(queue);
  const auto refused = [&](const auto& op) -> std::string {
    try {
      run(queue, op);
    } catch (const InternalError& error) {
      return error.what();
    }
    return "accepted";
  };
  const Tensor y = bench.random(DType::bf16, {2, 3}, 1), wide = bench.random(DType::f32, {2, 3}, 2);
  const Tensor short_bias = bench.random(DType::bf16, {2}, 3), f32 = bench.random(DType::f32, {3}, 4);
  EXPECT_EQ(refused(AddBias{.y = y, .bias = short_bias}), "AddBias: bias has the shape [2], not [3]");
  EXPECT_EQ(refused(AddBias{.y = y, .bias = f32}), "AddBias: bias is fp32, not bf16");
  EXPECT_EQ(refused(AddBias{.y = y, .bias = {}}), "AddBias: bias is missing");
  EXPECT_EQ(refused(BiasBackward{.dbias = bench.random(DType::bf16, {3}, 5), .dy = y}),
            "BiasBackward: dbias is bf16, not fp32");
  EXPECT_EQ(refused(BiasBackward{.dbias = short_bias, .dy = wide}),
            "BiasBackward: dbias has the shape [2], not [3]");
}

TEST(BiasCost, CountsWhatMoves) {
  MetaTrace trace;
  MetaQueue queue(trace, "compute");
  const Buffer y(queue, DType::bf16, {6, 10}, MemoryKind::scratch),
      bias(queue, DType::bf16, {10}, MemoryKind::scratch), sums(queue, DType::f32, {10}, MemoryKind::scratch);
  run(queue, AddBias{.y = y.tensor(), .bias = bias.tensor()});
  EXPECT_EQ(trace.total().flops, 60);
  EXPECT_EQ(trace.total().bytes, 2 * 2 * 60 + 2 * 10);
  run(queue, BiasBackward{.dbias = sums.tensor(), .accumulate = Accumulate::yes, .dy = y.tensor()});
  EXPECT_EQ(trace.total().flops, 120);
  EXPECT_EQ(trace.total().bytes, 2 * 2 * 60 + 2 * 10 + 2 * 60 + 2 * 4 * 10);
}

}  // namespace
}  // namespace verne::testing
