#pragma once
#include "cases.hpp"
#include "verne/ops/rms_norm.hpp"
#include "verne/ops/rope.hpp"

namespace verne::testing {

enum class Alias { none, dy, residual };

struct NormShape {
  std::int64_t rows, width;
};
inline std::vector<NormShape> norm_shapes() {
  return {{1, 1}, {1, 71}, {3, 229}, {33, 64}, {229, 71}, {33, 1024}, {3, 4096}, {1, 4096}};
}

inline std::vector<Output> run_rms_norm(Queue& queue, DType type, NormShape shape, Alias alias) {
  Workbench bench(queue);
  const auto [rows, width] = shape;
  const DType statistics = statistics_type(type);
  const bool with_residual = alias != Alias::dy;
  const Tensor x = bench.random(type, {rows, width}, 1), weight = bench.random(type, {width}, 2);
  const Tensor residual = with_residual ? bench.random(type, {rows, width}, 3) : Tensor{};
  const Tensor y = bench.poisoned(type, {rows, width}), rstd = bench.poisoned(statistics, {rows});
  const Tensor sum = with_residual ? bench.poisoned(type, {rows, width}) : Tensor{};
  bench.run(RmsNormForward{
      .y = y, .rstd = rstd, .sum = sum, .x = x, .residual = residual, .weight = weight, .eps = 1e-5});
  std::vector<Output> outputs{{"y", bench.values(y)}, {"rstd", bench.values(rstd)}};
  if (sum) outputs.push_back({"sum", bench.values(sum)});

  const Tensor dy = bench.random(type, {rows, width}, 4);
  const Tensor dsum = with_residual ? bench.random(type, {rows, width}, 5) : Tensor{};
  const Tensor dx = alias == Alias::dy         ? dy
                    : alias == Alias::residual ? dsum
                                               : bench.poisoned(type, {rows, width});
  const bool adds = alias == Alias::residual;
  const Tensor dweight = adds ? bench.random(statistics, {width}, 6) : bench.poisoned(statistics, {width});
  bench.run(RmsNormBackward{.dx = dx,
                            .dweight = dweight,
                            .accumulate_dweight = adds ? Accumulate::yes : Accumulate::no,
                            .dy = dy,
                            .dsum = dsum,
                            .s = with_residual ? sum : x,
                            .rstd = rstd,
                            .weight = weight});
  // One column without a residual: the gradient cancels but for eps, so that dx is nothing but rounding.
  if (width > 1) outputs.push_back({"dx", bench.values(dx)});
  outputs.push_back({"dweight", bench.values(dweight)});
  bench.expect_guards_intact();
  return outputs;
}

inline std::vector<Output> run_layer_norm(Queue& queue, DType type, NormShape shape, Alias alias) {
  Workbench bench(queue);
  const auto [rows, width] = shape;
  const DType statistics = statistics_type(type);
  const bool with_residual = alias != Alias::dy;
  const double offset = with_residual ? 1 : 0;
  const Tensor x = bench.random(type, {rows, width}, 1), weight = bench.random(type, {width}, 2);
  const Tensor bias = bench.random(type, {width}, 7);
  const Tensor residual = with_residual ? bench.random(type, {rows, width}, 3) : Tensor{};
  const Tensor y = bench.poisoned(type, {rows, width});
  const Tensor mean = bench.poisoned(statistics, {rows}), rstd = bench.poisoned(statistics, {rows});
  const Tensor sum = with_residual ? bench.poisoned(type, {rows, width}) : Tensor{};
  bench.run(LayerNormForward{.y = y,
                             .mean = mean,
                             .rstd = rstd,
                             .sum = sum,
                             .x = x,
                             .residual = residual,
                             .weight = weight,
                             .bias = bias,
                             .eps = 1e-5,
                             .weight_offset = offset});
  std::vector<Output> outputs{{"y", bench.values(y)}, {"rstd", bench.values(rstd)}};
  if (sum) outputs.push_back({"sum", bench.values(sum)});

  const Tensor dy = bench.random(type, {rows, width}, 4);
  const Tensor dsum = with_residual ? bench.random(type, {rows, width}, 5) : Tensor{};
  const Tensor dx = alias == Alias::dy         ? dy
                    : alias == Alias::residual ? dsum
                                               : bench.poisoned(type, {rows, width});
  const bool adds = alias == Alias::residual;
  const Tensor dweight = adds ? bench.random(statistics, {width}, 6) : bench.poisoned(statistics, {width});
  const Tensor dbias = adds ? bench.random(statistics, {width}, 8) : bench.poisoned(statistics, {width});
  const Accumulate accumulate = adds ? Accumulate::yes : Accumulate::no;
  bench.run(LayerNormBackward{.dx = dx,
                              .dweight = dweight,
                              .dbias = dbias,
                              .accumulate_dweight = accumulate,
                              .accumulate_dbias = accumulate,
                              .dy = dy,
                              .dsum = dsum,
                              .s = with_residual ? sum : x,
                              .mean = mean,
                              .rstd = rstd,
                              .weight = weight,
                              .weight_offset = offset});
  // One column: x is its own mean, so that dx is nothing but rounding.
  if (width > 1) outputs.push_back({"dx", bench.values(dx)});
  if (width > 1) outputs.push_back({"dweight", bench.values(dweight)});
  outputs.push_back({"dbias", bench.values(dbias)});
  bench.expect_guards_intact();
  return outputs;
}

inline std::vector<OpCase> norm_cases() {
  std::vector<OpCase> cases;
  const auto form = [](Alias alias) {
    return alias == Alias::none ? "" : alias == Alias::dy ? "_in_place" : "_in_place_of_residual_adding";
  };
  for (const NormShape shape : norm_shapes()) {
    for (const Alias alias : {Alias::none, Alias::dy, Alias::residual}) {
      const std::string suffix = fmt::format("_{}x{}{}", shape.rows, shape.width, form(alias));
      cases.push_back({"rms_norm" + suffix, {DType::f32, DType::bf16}, [=](Queue& queue, DType type) {
                         return run_rms_norm(queue, type, shape, alias);
                       }});
      cases.push_back({"layer_norm" + suffix, {DType::f32, DType::bf16}, [=](Queue& queue, DType type) {
                         return run_layer_norm(queue, type, shape, alias);
                       }});
    }
  }
  return cases;
}

struct RopeShape {
  std::int64_t tokens, heads, head_dim, rotary, stride;  // stride 0: contiguous
};

/// cos and sin tables [positions, rotary/2] of base 10000.
inline std::pair<Values, Values> rope_tables(std::int64_t positions, std::int64_t rotary) {
  Values cos, sin;
  for (std::int64_t p = 0; p < positions; ++p) {
    for (std::int64_t j = 0; j < rotary / 2; ++j) {
      const double angle = static_cast<double>(p) *
                           std::pow(10000.0, -2.0 * static_cast<double>(j) / static_cast<double>(rotary));
      cos.push_back(std::cos(angle));
      sin.push_back(std::sin(angle));
    }
  }
  return {cos, sin};
}

enum class HeadNorm { no, yes };

inline std::vector<Output> run_rope(Queue& queue, DType type, RopeShape shape, HeadNorm norm) {
  Workbench bench(queue);
  const auto [tokens, heads, dim, rotary, stride] = shape;
  const DType statistics = statistics_type(type);
  const bool normed = norm == HeadNorm::yes;
  const std::int64_t positions_count = 37;
  const auto [cos_values, sin_values] = rope_tables(positions_count, rotary);
  const Tensor cos = bench.of(statistics, {positions_count, rotary / 2}, cos_values);
  const Tensor sin = bench.of(statistics, {positions_count, rotary / 2}, sin_values);
  const Tensor positions = bench.integers(random_integers(tokens, 11, 0, positions_count));
  const Tensor x = bench.random(type, {tokens, heads, dim}, 1, 1, stride);
  const Tensor weight = normed ? bench.random(type, {dim}, 2) : Tensor{};
  const Tensor rstd = normed ? bench.poisoned(statistics, {tokens, heads}) : Tensor{};
  const Tensor y =
      normed ? bench.poisoned(type, {tokens, heads, dim}, stride) : x;  // in place without a norm
  bench.run(RopeForward{.y = y,
                        .rstd = rstd,
                        .x = x,
                        .weight = weight,
                        .cos = cos,
                        .sin = sin,
                        .positions = positions,
                        .eps = 1e-6});
  std::vector<Output> outputs{{"y", bench.values(y)}};
  if (normed) outputs.push_back({"rstd", bench.values(rstd)});

  const Tensor dy = bench.random(type, {tokens, heads, dim}, 3, 1, stride);
  const Tensor dx = normed ? dy : bench.poisoned(type, {tokens, heads, dim}, stride);
  const Tensor dweight = normed ? bench.random(statistics, {dim}, 4) : Tensor{};
  bench.run(RopeBackward{.dx = dx,
                         .dweight = dweight,
                         .accumulate_dweight = normed ? Accumulate::yes : Accumulate::no,
                         .dy = dy,
                         .x = normed ? x : Tensor{},
                         .rstd = rstd,
                         .weight = weight,
                         .cos = cos,
                         .sin = sin,
                         .positions = positions});
  outputs.push_back({"dx", bench.values(dx)});
  if (normed) outputs.push_back({"dweight", bench.values(dweight)});
  bench.expect_guards_intact();
  return outputs;
}

inline std::vector<OpCase> rope_cases() {
  std::vector<OpCase> cases;
  for (const RopeShape shape :
       {RopeShape{1, 1, 2, 2, 0}, RopeShape{3, 2, 64, 64, 0}, RopeShape{33, 3, 128, 128, 1152},
        RopeShape{229, 4, 64, 32, 0}, RopeShape{33, 5, 80, 40, 560}, RopeShape{3, 1, 6, 2, 7}}) {
    for (const HeadNorm norm : {HeadNorm::no, HeadNorm::yes}) {
      cases.push_back(
          {fmt::format("rope_{}x{}x{}_rotary{}_stride{}{}", shape.tokens, shape.heads, shape.head_dim,
                       shape.rotary, shape.stride, norm == HeadNorm::yes ? "_norm" : ""),
           {DType::f32, DType::bf16},
           [=](Queue& queue, DType type) { return run_rope(queue, type, shape, norm); }});
    }
  }
  return cases;
}

}  // namespace verne::testing
