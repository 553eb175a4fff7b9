#include "verne/ops/rope.hpp"

#include "cases_norm.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {
namespace {

constexpr double kEps = 1e-3;

struct Heads {
  std::int64_t tokens, heads, dim, rotary, stride;
  HeadNorm norm;
};

class RopeTest : public ::testing::TestWithParam<Heads> {
 protected:
  static constexpr std::int64_t kPositions = 9;
  CpuQueue queue{1};
  Workbench bench{queue};
  Heads h = GetParam();
  bool normed = h.norm == HeadNorm::yes;
  Values cos_values = rope_tables(kPositions, h.rotary).first,
         sin_values = rope_tables(kPositions, h.rotary).second;
  Tensor cos = bench.of(DType::f64, {kPositions, h.rotary / 2}, cos_values);
  Tensor sin = bench.of(DType::f64, {kPositions, h.rotary / 2}, sin_values);
  Values position_values = random_integers(h.tokens, 1, 0, kPositions);
  Tensor positions = bench.integers(position_values);
  Tensor x = bench.random(DType::f64, {h.tokens, h.heads, h.dim}, 2, 1, h.stride);
  Tensor weight = normed ? bench.random(DType::f64, {h.dim}, 3) : Tensor{};
  Tensor y = bench.poisoned(DType::f64, {h.tokens, h.heads, h.dim}, h.stride);
  Tensor rstd = normed ? bench.poisoned(DType::f64, {h.tokens, h.heads}) : Tensor{};
  RopeForward forward{.y = y,
                      .rstd = rstd,
                      .x = x,
                      .weight = weight,
                      .cos = cos,
                      .sin = sin,
                      .positions = positions,
                      .eps = kEps};
};

TEST_P(RopeTest, ForwardIsTheFormula) {
  run(queue, forward);
  const Values all = bench.values(x), gain = normed ? bench.values(weight) : Values{};
  Values expected;
  for (std::int64_t i = 0; i < h.tokens * h.heads; ++i) {
    Values n(all.begin() + i * h.dim, all.begin() + (i + 1) * h.dim);
    if (normed) {
      const double rstd_here = 1 / std::sqrt(dot(n, n) / static_cast<double>(h.dim) + kEps);
      for (std::size_t c = 0; c < n.size(); ++c) n[c] *= rstd_here * gain[c];
    }
    const auto position = static_cast<std::int64_t>(position_values[static_cast<std::size_t>(i / h.heads)]);
    for (std::int64_t c = 0; c < h.dim; ++c) {
      const std::int64_t half = h.rotary / 2;
      if (c >= h.rotary) {
        expected.push_back(n[static_cast<std::size_t>(c)]);
        continue;
      }
      const auto table = static_cast<std::size_t>(position * half + c % half);
      const double partner =
          c < half ? -n[static_cast<std::size_t>(c + half)] : n[static_cast<std::size_t>(c - half)];
      expected.push_back(n[static_cast<std::size_t>(c)] * cos_values[table] + partner * sin_values[table]);
    }
  }
  expect_close(bench.values(y), expected, tolerance(DType::f64).formula);
  bench.expect_guards_intact();
}

TEST_P(RopeTest, BackwardIsTheGradient) {
  run(queue, forward);
  const Tensor dy = bench.random(DType::f64, {h.tokens, h.heads, h.dim}, 4, 1, h.stride);
  const Values upstream = bench.values(dy);
  const Tensor dweight =
      normed ? bench.of(DType::f64, {h.dim}, Values(static_cast<std::size_t>(h.dim), 0.5)) : Tensor{};
  run(queue, RopeBackward{.dx = dy,
                          .dweight = dweight,
                          .accumulate_dweight = Accumulate::yes,
                          .dy = dy,
                          .x = normed ? x : Tensor{},
                          .rstd = rstd,
                          .weight = weight,
                          .cos = cos,
                          .sin = sin,
                          .positions = positions});
  const auto loss = [&] {
    run(queue, forward);
    return dot(bench.values(y), upstream);
  };
  expect_gradient(x, bench.values(dy), loss, "dx");
  if (!normed) return;
  Values gradient = bench.values(dweight);
  for (double& value : gradient) value -= 0.5;
  expect_gradient(weight, gradient, loss, "dweight");
}

INSTANTIATE_TEST_SUITE_P(Shapes, RopeTest,
                         ::testing::Values(Heads{1, 1, 2, 2, 0, HeadNorm::no},
                                           Heads{3, 2, 6, 6, 0, HeadNorm::yes},
                                           Heads{2, 3, 8, 4, 29, HeadNorm::no},
                                           Heads{20, 1, 6, 2, 7, HeadNorm::yes}));

TEST(Rope, RefusesAPositionBeyondTheTable) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor x = bench.random(DType::f32, {1, 1, 4}, 1), table = bench.random(DType::f32, {3, 2}, 2);
  EXPECT_THROW(
      run(queue, RopeForward{.y = x, .x = x, .cos = table, .sin = table, .positions = bench.integers({3})}),
      InternalError);
  const Tensor wide = bench.random(DType::f32, {3, 3}, 2);
  EXPECT_THROW(
      run(queue, RopeForward{.y = x, .x = x, .cos = wide, .sin = wide, .positions = bench.integers({0})}),
      InternalError);
}

}  // namespace
}  // namespace verne::testing
