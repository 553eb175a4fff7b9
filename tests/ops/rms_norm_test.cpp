#include "verne/ops/rms_norm.hpp"

#include "fixture.hpp"
#include "verne/ops/run.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {
namespace {

constexpr double kEps = 1e-3;  // large enough to be seen
enum class Residual { no, yes };

/// A norm of float64 with everything that its gradient needs.
struct Norm {
  CpuQueue queue{1};
  Workbench bench{queue};
  std::int64_t rows, width;
  Tensor x, residual, weight, bias, y, mean, rstd, sum, dy, dsum;

  Norm(std::int64_t rows_, std::int64_t width_, Residual with) : rows(rows_), width(width_) {
    const Shape shape{rows, width};
    x = bench.random(DType::f64, shape, 1);
    weight = bench.random(DType::f64, {width}, 2);
    bias = bench.random(DType::f64, {width}, 3);
    y = bench.poisoned(DType::f64, shape);
    mean = bench.poisoned(DType::f64, {rows});
    rstd = bench.poisoned(DType::f64, {rows});
    dy = bench.random(DType::f64, shape, 4);
    if (with == Residual::yes) {
      residual = bench.random(DType::f64, shape, 5);
      sum = bench.poisoned(DType::f64, shape);
      dsum = bench.random(DType::f64, shape, 6);
    }
  }
  const Tensor& normalised() const { return sum ? sum : x; }
  /// Σ y·dy + Σ sum·dsum
  double loss() const {
    return dot(bench.values(y), bench.values(dy)) + (sum ? dot(bench.values(sum), bench.values(dsum)) : 0);
  }
};

class NormTest : public ::testing::TestWithParam<std::tuple<std::int64_t, std::int64_t, Residual>> {};

TEST_P(NormTest, RmsNormForwardIsTheFormula) {
  const auto [rows, width, with] = GetParam();
  Norm norm(rows, width, with);
  run(norm.queue, RmsNormForward{.y = norm.y,
                                 .rstd = norm.rstd,
                                 .sum = norm.sum,
                                 .x = norm.x,
                                 .residual = norm.residual,
                                 .weight = norm.weight,
                                 .eps = kEps});
  Values s = norm.bench.values(norm.x), expected;
  const Values weight = norm.bench.values(norm.weight);
  if (norm.residual) {
    const Values residual = norm.bench.values(norm.residual);
    for (std::size_t i = 0; i < s.size(); ++i) s[i] += residual[i];
    expect_close(norm.bench.values(norm.sum), s, tolerance(DType::f64).formula);
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    double squares = 0;
    for (std::int64_t c = 0; c < width; ++c)
      squares += std::pow(s[static_cast<std::size_t>(r * width + c)], 2);
    const double rstd = 1 / std::sqrt(squares / static_cast<double>(width) + kEps);
    for (std::int64_t c = 0; c < width; ++c) {
      expected.push_back(s[static_cast<std::size_t>(r * width + c)] * rstd *
                         weight[static_cast<std::size_t>(c)]);
    }
  }
  expect_close(norm.bench.values(norm.y), expected, tolerance(DType::f64).formula);
}

TEST_P(NormTest, RmsNormBackwardIsTheGradient) {
  const auto [rows, width, with] = GetParam();
  Norm norm(rows, width, with);
  const auto loss = [&] {
    run(norm.queue, RmsNormForward{.y = norm.y,
                                   .rstd = norm.rstd,
                                   .sum = norm.sum,
                                   .x = norm.x,
                                   .residual = norm.residual,
                                   .weight = norm.weight,
                                   .eps = kEps});
    return norm.loss();
  };
  loss();
  const Tensor dx = norm.bench.poisoned(DType::f64, {rows, width}),
               dweight = norm.bench.poisoned(DType::f64, {width});
  run(norm.queue, RmsNormBackward{.dx = dx,
                                  .dweight = dweight,
                                  .dy = norm.dy,
                                  .dsum = norm.dsum,
                                  .s = norm.normalised(),
                                  .rstd = norm.rstd,
                                  .weight = norm.weight});
  expect_gradient(norm.x, norm.bench.values(dx), loss, "dx");
  expect_gradient(norm.weight, norm.bench.values(dweight), loss, "dweight");
  if (norm.residual) expect_gradient(norm.residual, norm.bench.values(dx), loss, "dresidual");
}

TEST_P(NormTest, LayerNormForwardIsTheFormula) {
  const auto [rows, width, with] = GetParam();
  Norm norm(rows, width, with);
  run(norm.queue, LayerNormForward{.y = norm.y,
                                   .mean = norm.mean,
                                   .rstd = norm.rstd,
                                   .sum = norm.sum,
                                   .x = norm.x,
                                   .residual = norm.residual,
                                   .weight = norm.weight,
                                   .bias = norm.bias,
                                   .eps = kEps,
                                   .weight_offset = 1});
  Values s = norm.bench.values(norm.x), expected;
  const Values weight = norm.bench.values(norm.weight), bias = norm.bench.values(norm.bias);
  if (norm.residual) {
    const Values residual = norm.bench.values(norm.residual);
    for (std::size_t i = 0; i < s.size(); ++i) s[i] += residual[i];
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto value = [&](std::int64_t c) { return s[static_cast<std::size_t>(r * width + c)]; };
    double mean = 0, variance = 0;
    for (std::int64_t c = 0; c < width; ++c) mean += value(c) / static_cast<double>(width);
    for (std::int64_t c = 0; c < width; ++c)
      variance += std::pow(value(c) - mean, 2) / static_cast<double>(width);
    for (std::int64_t c = 0; c < width; ++c) {
      const auto i = static_cast<std::size_t>(c);
      expected.push_back((value(c) - mean) / std::sqrt(variance + kEps) * (weight[i] + 1) + bias[i]);
    }
  }
  expect_close(norm.bench.values(norm.y), expected, tolerance(DType::f64).formula);
}

TEST_P(NormTest, LayerNormBackwardIsTheGradient) {
  const auto [rows, width, with] = GetParam();
  Norm norm(rows, width, with);
  const auto loss = [&] {
    run(norm.queue, LayerNormForward{.y = norm.y,
                                     .mean = norm.mean,
                                     .rstd = norm.rstd,
                                     .sum = norm.sum,
                                     .x = norm.x,
                                     .residual = norm.residual,
                                     .weight = norm.weight,
                                     .bias = norm.bias,
                                     .eps = kEps,
                                     .weight_offset = 1});
    return norm.loss();
  };
  loss();
  const Tensor dx = norm.bench.poisoned(DType::f64, {rows, width});
  const Tensor dweight = norm.bench.poisoned(DType::f64, {width}),
               dbias = norm.bench.poisoned(DType::f64, {width});
  run(norm.queue, LayerNormBackward{.dx = dx,
                                    .dweight = dweight,
                                    .dbias = dbias,
                                    .dy = norm.dy,
                                    .dsum = norm.dsum,
                                    .s = norm.normalised(),
                                    .mean = norm.mean,
                                    .rstd = norm.rstd,
                                    .weight = norm.weight,
                                    .weight_offset = 1});
  expect_gradient(norm.bias, norm.bench.values(dbias), loss, "dbias");
  if (width == 1) return;  // y is the bias whatever x: nothing but rounding is left to compare
  expect_gradient(norm.x, norm.bench.values(dx), loss, "dx");
  expect_gradient(norm.weight, norm.bench.values(dweight), loss, "dweight");
}

TEST_P(NormTest, BackwardInPlaceAndAddingIsTheSame) {
  const auto [rows, width, with] = GetParam();
  Norm norm(rows, width, with);
  run(norm.queue, RmsNormForward{.y = norm.y,
                                 .rstd = norm.rstd,
                                 .sum = norm.sum,
                                 .x = norm.x,
                                 .residual = norm.residual,
                                 .weight = norm.weight,
                                 .eps = kEps});
  const Tensor dx = norm.bench.poisoned(DType::f64, {rows, width}),
               dweight = norm.bench.poisoned(DType::f64, {width});
  RmsNormBackward op{.dx = dx,
                     .dweight = dweight,
                     .dy = norm.dy,
                     .dsum = norm.dsum,
                     .s = norm.normalised(),
                     .rstd = norm.rstd,
                     .weight = norm.weight};
  run(norm.queue, op);
  const Values plain = norm.bench.values(dx);
  Values twice = norm.bench.values(dweight);
  for (double& value : twice) value *= 2;
  op.dx = norm.dsum ? norm.dsum : norm.dy;
  op.accumulate_dweight = Accumulate::yes;
  run(norm.queue, op);
  EXPECT_EQ(norm.bench.values(op.dx), plain);
  EXPECT_EQ(norm.bench.values(dweight), twice);
  norm.bench.expect_guards_intact();
}

INSTANTIATE_TEST_SUITE_P(Shapes, NormTest,
                         ::testing::Combine(::testing::Values(1, 3, 19), ::testing::Values(1, 2, 7),
                                            ::testing::Values(Residual::no, Residual::yes)));

TEST(RmsNorm, RoundsTheNormalisedValueBeforeTheGain) {
  CpuQueue queue;
  Workbench bench(queue);
  // rstd = 1/√((1 + 4)/2) = 0.63246; 0.63246 rounds to 0.6328125 in bfloat16, 1.26491 to 1.265625.
  const Tensor x = bench.of(DType::bf16, {1, 2}, {1, 2}), weight = bench.of(DType::bf16, {2}, {3, 3});
  const Tensor y = bench.poisoned(DType::bf16, {1, 2}), rstd = bench.poisoned(DType::f32, {1});
  run(queue, RmsNormForward{.y = y, .rstd = rstd, .x = x, .weight = weight, .eps = 0});
  EXPECT_EQ(bench.values(y),
            (Values{static_cast<float>(bf16(3 * 0.6328125f)), static_cast<float>(bf16(3 * 1.265625f))}));
  EXPECT_NEAR(bench.values(rstd)[0], 0.632455532, 1e-7);
}

TEST(RmsNormCheck, NamesWhatIsWrong) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor x = bench.random(DType::f32, {2, 4}, 1), weight = bench.random(DType::f32, {4}, 2);
  const Tensor y = bench.poisoned(DType::f32, {2, 4}), rstd = bench.poisoned(DType::f32, {2});
  const RmsNormForward good{.y = y, .rstd = rstd, .x = x, .weight = weight};
  EXPECT_NO_THROW(run(queue, good));
  const auto message = [&](const RmsNormForward& op) -> std::string {
    try {
      run(queue, op);
    } catch (const InternalError& error) {
      return error.what();
    }
    return "accepted";
  };
  RmsNormForward op = good;
  op.weight = bench.random(DType::f32, {5}, 2);
  EXPECT_EQ(message(op), "RmsNormForward: weight has the shape [5], not [4]");
  op = good;
  op.rstd = Tensor{};
  EXPECT_EQ(message(op), "RmsNormForward: rstd is missing");
  op = good;
  op.y = bench.poisoned(DType::bf16, {2, 4});
  EXPECT_EQ(message(op), "RmsNormForward: y is bf16, not fp32");
  op = good;
  op.sum = y;
  EXPECT_EQ(message(op), "RmsNormForward: sum [2, 4] is there without a residual");
  op = good;
  op.x = bench.random(DType::f32, {2, 4}, 1, 1, 6);
  EXPECT_EQ(message(op), "RmsNormForward: x [2, 4] is strided by 6, not contiguous");
}

}  // namespace
}  // namespace verne::testing
