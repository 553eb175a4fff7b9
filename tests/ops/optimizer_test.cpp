#include "verne/ops/optimizer.hpp"

#include "fixture.hpp"
#include "verne/ops/run.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {
namespace {

double scalar_of(const Workbench& bench, const Tensor& scalars, StepScalar which) {
  return bench.values(scalars)[static_cast<std::size_t>(which)];
}

TEST(ClipFactor, ScalesLongGradientsAlone) {
  CpuQueue queue;
  Workbench bench(queue);
  const auto clip = [&](double sum, double max_norm) {
    const Tensor scalars = bench.of(DType::f32, {kStepScalars}, {0.5, 0.25, 0.125, 9, 9, 9});
    run(queue,
        ClipFactor{
            .scalars = scalars, .sum_of_squares = bench.of(DType::f64, {1}, {sum}), .max_norm = max_norm});
    const Values kept = bench.values(scalars);
    EXPECT_EQ((Values{kept.begin(), kept.begin() + 3}), (Values{0.5, 0.25, 0.125}));
    return Values{kept.begin() + 3, kept.end()};
  };
  EXPECT_EQ(clip(16, 1), (Values{static_cast<float>(1 / (4 + 1e-6)), 4, 0}));
  EXPECT_EQ(clip(0.25, 1), (Values{1, 0.5, 0}));
  EXPECT_EQ(clip(16, 0), (Values{1, 4, 0}));
  EXPECT_EQ(clip(INFINITY, 1).back(), 1);
  EXPECT_EQ(clip(std::nan(""), 1).back(), 1);
}

/// The update by hand in float64, several steps, with weight decay and clipping.
TEST(AdamW, FollowsTheFormulaForSeveralSteps) {
  constexpr std::int64_t kCount = 17001;  // crosses a chunk
  CpuQueue queue(2);
  const double beta1 = 0.9, beta2 = 0.98, eps = 1e-5, decay = 0.1;
  for (const DType type : {DType::f32, DType::bf16}) {
    Workbench bench(queue);
    const Tensor master = bench.random(DType::f32, {kCount}, 1);
    const Tensor weight = type == DType::f32 ? master : bench.random(type, {kCount}, 1);
    const Tensor m = bench.of(DType::f32, {kCount}, Values(kCount)),
                 v = bench.of(DType::f32, {kCount}, Values(kCount));
    Values w = bench.values(master), em(kCount), ev(kCount);
    for (int step = 1; step <= 5; ++step) {
      const double lr = 1e-3 * step, clip = 1.0 / step;
      const double c1 = 1 - std::pow(beta1, step), c2 = 1 - std::pow(beta2, step);
      const Tensor grad = bench.random(DType::f32, {kCount}, static_cast<std::uint32_t>(10 + step));
      const Tensor scalars = bench.of(DType::f32, {kStepScalars}, {lr, c1, c2, clip, 0, 0});
      run(queue, AdamW{.weight = weight,
                       .master = master,
                       .exp_avg = m,
                       .exp_avg_sq = v,
                       .grad = grad,
                       .scalars = scalars,
                       .beta1 = beta1,
                       .beta2 = beta2,
                       .eps = eps,
                       .weight_decay = decay});
      const Values gradient = bench.values(grad);
      for (std::size_t i = 0; i < w.size(); ++i) {
        const double g = gradient[i] * clip;
        em[i] = beta1 * em[i] + (1 - beta1) * g;
        ev[i] = beta2 * ev[i] + (1 - beta2) * g * g;
        w[i] -= lr * decay * w[i] + lr * (em[i] / c1) / (std::sqrt(ev[i] / c2) + eps);
      }
      expect_close(bench.values(master), w, 2e-7 * step, fmt::format("step {}", step));
      expect_close(bench.values(m), em, 1e-6);
      expect_close(bench.values(v), ev, 1e-6);
    }
    const Values stored = bench.values(weight), exact = bench.values(master);
    for (std::size_t i = 0; i < stored.size(); ++i) {
      const auto value = static_cast<float>(exact[i]);
      ASSERT_EQ(stored[i], type == DType::bf16 ? static_cast<float>(bf16(value)) : value);
    }
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
  const Tensor scalars = bench.of(DType::f32, {kStepScalars}, {1, 1, 1, 1, 1, 1});
  run(queue, AdamW{.weight = weight,
                   .master = weight,
                   .exp_avg = m,
                   .exp_avg_sq = v,
                   .grad = grad,
                   .scalars = scalars});
  EXPECT_EQ(scalar_of(bench, scalars, StepScalar::skip), 1);
  EXPECT_EQ(bench.values(weight), before);
  EXPECT_EQ(bench.values(m), before_m);
  EXPECT_EQ(bench.values(v), before_v);
}

TEST(AdamWCheck, NamesWhatIsWrong) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor x = bench.random(DType::f32, {4}, 1),
               scalars = bench.of(DType::f32, {kStepScalars}, Values(kStepScalars));
  AdamW op{.weight = x,
           .master = x,
           .exp_avg = x,
           .exp_avg_sq = x,
           .grad = bench.random(DType::f32, {5}, 1),
           .scalars = scalars};
  try {
    run(queue, op);
    FAIL();
  } catch (const InternalError& error) {
    EXPECT_STREQ(error.what(), "AdamW: grad has 5 elements, weight 4");
  }
  op.grad = bench.random(DType::bf16, {4}, 1);
  EXPECT_THROW(run(queue, op), InternalError);
}

}  // namespace
}  // namespace verne::testing
