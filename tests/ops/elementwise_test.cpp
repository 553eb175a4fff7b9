#include "verne/ops/elementwise.hpp"

#include "fixture.hpp"
#include "verne/ops/run.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {
namespace {

TEST(Fill, FillsRowsAndLeavesTheGaps) {
  CpuQueue queue(2);
  for (const DType type : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
    Workbench bench(queue);
    const Tensor y = bench.poisoned(type, {3, 5}, 7), flat = bench.poisoned(type, {50000});
    run(queue, Fill{.y = y, .value = -1.25});
    run(queue, Fill{.y = flat, .value = 3});
    EXPECT_EQ(bench.values(y), Values(15, -1.25));
    EXPECT_EQ(bench.values(flat), Values(50000, 3));
    bench.expect_guards_intact();
  }
  Workbench bench(queue);
  EXPECT_THROW(run(queue, Fill{.y = bench.integers({1})}), InternalError);
}

TEST(Cast, RoundsToNearestEven) {
  CpuQueue queue;
  Workbench bench(queue);
  // 1 + 2^-8 lies between two bfloat16 numbers, as does 1 + 3·2^-8: both go to the even one.
  const Tensor x = bench.of(DType::f32, {5}, {1.00390625, 1.01171875, -65536, INFINITY, 1e-8});
  const Tensor narrow = bench.poisoned(DType::bf16, {5}), half = bench.poisoned(DType::f16, {5}),
               back = bench.poisoned(DType::f64, {5});
  run(queue, Cast{.y = narrow, .x = x});
  run(queue, Cast{.y = half, .x = x});
  EXPECT_EQ(bench.values(narrow), (Values{1, 1.015625, -65536, INFINITY, static_cast<float>(bf16(1e-8f))}));
  EXPECT_EQ(bench.values(half), (Values{1.00390625, 1.01171875, -INFINITY, INFINITY, 0}));
  run(queue, Cast{.y = back, .x = narrow});
  EXPECT_EQ(bench.values(back), bench.values(narrow));
}

TEST(Cast, CopiesBetweenStrides) {
  CpuQueue queue(2);
  Workbench bench(queue);
  for (const std::int64_t from : {4, 6}) {
    for (const std::int64_t to : {4, 9}) {
      const Tensor x = bench.random(DType::bf16, {3, 2, 2}, 1, 1, from),
                   y = bench.poisoned(DType::bf16, {3, 2, 2}, to);
      run(queue, Cast{.y = y, .x = x});
      EXPECT_EQ(bench.values(y), bench.values(x));
    }
  }
  const Tensor column = bench.random(DType::f32, {5}, 2, 1, 3), vector = bench.poisoned(DType::f64, {5});
  run(queue, Cast{.y = vector, .x = column});
  EXPECT_EQ(bench.values(vector), bench.values(column));
  bench.expect_guards_intact();
}

TEST(Add, AddsInPlaceToo) {
  CpuQueue queue(2);
  Workbench bench(queue);
  const Tensor a = bench.random(DType::f32, {3, 7001}, 1), b = bench.random(DType::f32, {3, 7001}, 2);
  Values expected = bench.values(a);
  const Values other = bench.values(b);
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = static_cast<float>(expected[i] + other[i]);
  run(queue, Add{.y = b, .a = a, .b = b});
  EXPECT_EQ(bench.values(b), expected);
  EXPECT_THROW(run(queue, Add{.y = b, .a = a, .b = bench.random(DType::f32, {3, 4}, 3)}), InternalError);
}

TEST(RandomNormal, IsTheSameHoweverTheMatrixIsCut) {
  CpuQueue queue(2);
  Workbench bench(queue);
  const RandomSite site{.seed = 99, .site = 3, .step = 1};
  const Tensor whole = bench.poisoned(DType::f32, {8, 12});
  run(queue, RandomNormal{.y = whole, .site = site, .mean = 1, .deviation = 0.5, .row_length = 12});
  const Values all = bench.values(whole);
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{4, 12}, {8, 3}, {2, 4}}) {
    for (std::int64_t r = 0; r < 8; r += rows) {
      for (std::int64_t c = 0; c < 12; c += columns) {
        const Tensor part = bench.poisoned(DType::f32, {rows, columns}, columns + 2);
        run(queue, RandomNormal{.y = part,
                                .site = site,
                                .mean = 1,
                                .deviation = 0.5,
                                .first_row = r,
                                .first_column = c,
                                .row_length = 12});
        Values expected;
        for (std::int64_t i = 0; i < rows * columns; ++i) {
          expected.push_back(all[static_cast<std::size_t>((r + i / columns) * 12 + c + i % columns)]);
        }
        EXPECT_EQ(bench.values(part), expected);
      }
    }
  }
  const Tensor vector = bench.poisoned(DType::f32, {96});
  run(queue, RandomNormal{.y = vector, .site = site, .mean = 1, .deviation = 0.5, .row_length = 96});
  EXPECT_EQ(bench.values(vector), all);
  EXPECT_THROW(run(queue, RandomNormal{.y = whole, .site = site, .row_length = 11}), InternalError);
}

TEST(RandomNormal, HasTheMomentsOfANormal) {
  CpuQueue queue(2);
  Workbench bench(queue);
  const std::int64_t n = 200000;
  const Tensor y = bench.poisoned(DType::f32, {n});
  run(queue, RandomNormal{.y = y, .site = {.seed = 1}, .mean = 3, .deviation = 2, .row_length = n});
  double mean = 0, second = 0, third = 0, fourth = 0, neighbours = 0, before = 0;
  for (const double value : bench.values(y)) {
    const double z = (value - 3) / 2;
    mean += z / n;
    second += z * z / n;
    third += z * z * z / n;
    fourth += z * z * z * z / n;
    neighbours += z * before / n;
    before = z;
  }
  // Five standard errors: √(1/n), √(2/n), √(15/n), √(96/n).
  EXPECT_NEAR(mean, 0, 5 * std::sqrt(1.0 / n));
  EXPECT_NEAR(second, 1, 5 * std::sqrt(2.0 / n));
  EXPECT_NEAR(third, 0, 5 * std::sqrt(15.0 / n));
  EXPECT_NEAR(fourth, 3, 5 * std::sqrt(96.0 / n));
  EXPECT_NEAR(neighbours, 0, 5 * std::sqrt(1.0 / n));
}

}  // namespace
}  // namespace verne::testing
