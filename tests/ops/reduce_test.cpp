#include "verne/ops/reduce.hpp"

#include "fixture.hpp"
#include "verne/ops/run.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {
namespace {

TEST(MaskedSum, AddsWhatIsCounted) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor total = bench.of(DType::f64, {1}, {10});
  run(queue, MaskedSum{.total = total,
                       .values = bench.of(DType::f32, {4}, {1, 2, -INFINITY, 4}),
                       .mask = bench.mask({1, 1, 0, 1}),
                       .factor = -2});
  EXPECT_EQ(bench.values(total)[0], 10 - 2 * 7);
}

TEST(SumOfSquares, KeepsItsDigits) {
  CpuQueue queue(3);
  Workbench bench(queue);
  const Values values = random_values(100001, 1);
  double expected = 0;
  for (const double value : values) expected += value * value;
  const Tensor total = bench.of(DType::f64, {1}, {0.5});
  run(queue, SumOfSquares{.total = total, .values = bench.of(DType::f32, {100001}, values)});
  EXPECT_NEAR((bench.values(total)[0] - 0.5) / expected, 1, 1e-13);
}

TEST(SumOfSquares, CarriesNanAndInfinityAndLargeValues) {
  CpuQueue queue;
  const auto sum = [&](const Values& values) {
    Workbench bench(queue);
    const Tensor total = bench.of(DType::f64, {1}, {0});
    run(queue, SumOfSquares{.total = total, .values = bench.of(DType::f32, {std::ssize(values)}, values)});
    return bench.values(total)[0];
  };
  EXPECT_TRUE(std::isnan(sum({1, std::nan(""), 2})));
  EXPECT_EQ(sum({1, -INFINITY}), INFINITY);
  EXPECT_NEAR(sum({3e30, 4e30}) / 25e60, 1, 1e-6);  // beyond float32
}

TEST(ReduceCheck, NamesWhatIsWrong) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor values = bench.random(DType::f32, {4}, 1);
  EXPECT_THROW(run(queue, SumOfSquares{.total = bench.of(DType::f32, {1}, {0}), .values = values}),
               InternalError);
  EXPECT_THROW(
      run(queue,
          MaskedSum{.total = bench.of(DType::f64, {1}, {0}), .values = values, .mask = bench.mask({1})}),
      InternalError);
}

}  // namespace
}  // namespace verne::testing
