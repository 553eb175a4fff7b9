#include "verne/ops/optimizer.hpp"

#include <gmock/gmock.h>

#include "cases_elementwise.hpp"
#include "verne/ops/run.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {
namespace {

using ::testing::ElementsAre;

TEST(ClipFactor, ScalesLongGradientsAlone) {
  CpuQueue queue;
  Workbench bench(queue);
  const auto clip = [&](double sum, double max_norm, double loss = 3, double skip = 0) {
    const Tensor scalars = bench.of(DType::f32, {kStepScalars}, {0.5, 0.25, 0.125, 9, 9, skip});
    run(queue, ClipFactor{.scalars = scalars,
                          .sum_of_squares = bench.of(DType::f64, {1}, {sum}),
                          .loss = bench.of(DType::f64, {1}, {loss}),
                          .max_norm = max_norm});
    const Values kept = bench.values(scalars);
    EXPECT_EQ((Values{kept.begin(), kept.begin() + 3}), (Values{0.5, 0.25, 0.125}));
    return Values{kept.begin() + 3, kept.end()};
  };
  EXPECT_EQ(clip(16, 1), (Values{static_cast<float>(1 / (4 + 1e-6)), 4, 0}));
  EXPECT_EQ(clip(0.25, 1), (Values{1, 0.5, 0}));
  EXPECT_EQ(clip(16, 0), (Values{1, 4, 0}));
  EXPECT_EQ(clip(INFINITY, 1).back(), 1);
  EXPECT_EQ(clip(std::nan(""), 1).back(), 1);
  EXPECT_EQ(clip(16, 1, std::nan("")).back(), 1);
  EXPECT_EQ(clip(16, 1, INFINITY).back(), 1);
  EXPECT_EQ(clip(16, 1, 3, 1).back(), 1) << "once skipped, always skipped";
}

TEST(OptimizerTiles, CutSegments) {
  const std::vector<OptimizerSegment> segments = {
      {.flat = 10, .owned = 0, .count = 8192 + 5, .decays = true, .counted = true},
      {.flat = 9000, .owned = 8197, .count = 3, .counted = true},
      {.flat = 9003, .owned = 8200, .count = 0}};
  EXPECT_THAT(optimizer_tiles(segments), ElementsAre(10, 0, 8192, 3, 8202, 8192, 5, 3, 9000, 8197, 3, 2));
}

TEST(GradientSquares, CountsCountedTilesAlone) {
  CpuQueue queue(3);
  Workbench bench(queue);
  constexpr std::int64_t kFlat = 50'000;
  const Tensor grad = bench.random(DType::f32, {kFlat}, 1), total = bench.of(DType::f64, {1}, {7});
  const std::vector<OptimizerSegment> segments = {
      {.flat = 3, .owned = 0, .count = 20'000, .counted = true},
      {.flat = 21'000, .owned = 20'000, .count = 9'000},
      {.flat = 40'001, .owned = 29'000, .count = 77, .counted = true}};
  run(queue, GradientSquares{.total = total, .grad = grad, .tiles = tiles_on(bench, segments)});
  const Values values = bench.values(grad);
  double expected = 7;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool counted = (i >= 3 && i < 20'003) || (i >= 40'001 && i < 40'078);
    expected += counted ? values[i] * values[i] : 0;
  }
  EXPECT_NEAR(bench.values(total)[0], expected, 1e-9 * expected);
}

/// The update by hand in float64, several steps, with weight decay and clipping.
TEST(AdamW, FollowsTheFormulaForSeveralSteps) {
  constexpr std::int64_t kCount = 17001, kFirst = 9001, kFlat = kCount + 30;
  const std::vector<OptimizerSegment> segments = {
      {.flat = 8, .owned = 0, .count = kFirst, .decays = true},
      {.flat = kFirst + 20, .owned = kFirst, .count = kCount - kFirst}};
  const auto flat_of = [](std::int64_t i) { return static_cast<std::size_t>(i < kFirst ? i + 8 : i + 20); };
  CpuQueue queue(2);
  const double beta1 = 0.9, beta2 = 0.98, eps = 1e-5, decay = 0.1;
  for (const DType type : {DType::f32, DType::bf16}) {
    Workbench bench(queue);
    const Tensor weight = bench.random(type, {kFlat}, 1), tiles = tiles_on(bench, segments);
    const Values untouched = bench.values(weight);
    Values w(kCount), em(kCount), ev(kCount);
    for (std::int64_t i = 0; i < kCount; ++i) w[static_cast<std::size_t>(i)] = untouched[flat_of(i)];
    const Tensor master = type == DType::f32 ? Tensor{} : bench.of(DType::f32, {kCount}, w);
    const Tensor m = bench.of(DType::f32, {kCount}, Values(kCount)),
                 v = bench.of(DType::f32, {kCount}, Values(kCount));
    for (int step = 1; step <= 5; ++step) {
      const double lr = 1e-3 * step, clip = 1.0 / step;
      const double c1 = 1 - std::pow(beta1, step), c2 = 1 - std::pow(beta2, step);
      const Tensor grad = bench.random(DType::f32, {kFlat}, static_cast<std::uint32_t>(10 + step));
      const Tensor scalars = bench.of(DType::f32, {kStepScalars}, {lr, c1, c2, clip, 0, 0});
      run(queue, AdamW{.weight = weight,
                       .master = master,
                       .exp_avg = m,
                       .exp_avg_sq = v,
                       .grad = grad,
                       .scalars = scalars,
                       .tiles = tiles,
                       .beta1 = beta1,
                       .beta2 = beta2,
                       .eps = eps,
                       .weight_decay = decay});
      const Values gradient = bench.values(grad), stored = bench.values(weight);
      Values masters = type == DType::f32 ? Values(kCount) : bench.values(master);
      for (std::int64_t k = 0; k < kCount; ++k) {
        const auto i = static_cast<std::size_t>(k);
        const double g = gradient[flat_of(k)] * clip;
        em[i] = beta1 * em[i] + (1 - beta1) * g;
        ev[i] = beta2 * ev[i] + (1 - beta2) * g * g;
        w[i] -= (k < kFirst ? lr * decay * w[i] : 0) + lr * (em[i] / c1) / (std::sqrt(ev[i] / c2) + eps);
        if (type == DType::f32) masters[i] = stored[flat_of(k)];
        const auto value = static_cast<float>(masters[i]);
        ASSERT_EQ(stored[flat_of(k)], type == DType::bf16 ? static_cast<float>(bf16(value)) : value);
      }
      expect_close(masters, w, 2e-7 * step, fmt::format("step {}", step));
      expect_close(bench.values(m), em, 1e-6);
      expect_close(bench.values(v), ev, 1e-6);
    }
    Values kept = bench.values(weight);
    for (std::int64_t i = 0; i < kCount; ++i) kept[flat_of(i)] = untouched[flat_of(i)];
    EXPECT_EQ(kept, untouched) << "outside its tiles";
    bench.expect_guards_intact();
  }
}

TEST(AdamW, ChangesNothingWhereTheStepIsSkipped) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor weight = bench.random(DType::f32, {5}, 1), m = bench.random(DType::f32, {5}, 2);
  const Tensor v = bench.of(DType::f32, {5}, {1, 2, 3, 4, 5}),
               grad = bench.of(DType::f32, {5}, {1, std::nan(""), 1, 1, 1});
  const Values before = bench.values(weight), before_m = bench.values(m), before_v = bench.values(v);
  const std::vector<OptimizerSegment> all = {{.count = 5}};
  const Tensor scalars = bench.of(DType::f32, {kStepScalars}, {1, 1, 1, 1, 1, 1});
  run(queue, AdamW{.weight = weight,
                   .master = {},
                   .exp_avg = m,
                   .exp_avg_sq = v,
                   .grad = grad,
                   .scalars = scalars,
                   .tiles = tiles_on(bench, all)});
  EXPECT_EQ(bench.values(weight), before);
  EXPECT_EQ(bench.values(m), before_m);
  EXPECT_EQ(bench.values(v), before_v);
}

TEST(AdamWCheck, NamesWhatIsWrong) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor x = bench.random(DType::f32, {4}, 1),
               scalars = bench.of(DType::f32, {kStepScalars}, Values(kStepScalars));
  const std::vector<OptimizerSegment> all = {{.count = 4}};
  AdamW op{.weight = x,
           .master = {},
           .exp_avg = x,
           .exp_avg_sq = x,
           .grad = bench.random(DType::f32, {5}, 1),
           .scalars = scalars,
           .tiles = tiles_on(bench, all)};
  try {
    run(queue, op);
    FAIL();
  } catch (const InternalError& error) {
    EXPECT_STREQ(error.what(), "AdamW: grad has the shape [5], not [4]");
  }
  op.grad = bench.random(DType::bf16, {4}, 1);
  EXPECT_THROW(run(queue, op), InternalError);
  op.grad = x;
  op.weight = bench.random(DType::bf16, {4}, 1);  // has no master
  EXPECT_THROW(run(queue, op), InternalError);
}

}  // namespace
}  // namespace verne::testing
