#pragma once
#include "cases.hpp"
#include "verne/ops/activation.hpp"
#include "verne/ops/bias.hpp"
#include "verne/ops/elementwise.hpp"
#include "verne/ops/optimizer.hpp"
#include "verne/ops/reduce.hpp"

namespace verne::testing {

inline std::vector<Output> run_activations(Queue& queue, DType type, std::int64_t tokens,
                                           std::int64_t width) {
  Workbench bench(queue);
  const Tensor gate_up = bench.random(type, {tokens, 2 * width}, 1, 3),
               dy = bench.random(type, {tokens, width}, 2);
  const Tensor y = bench.poisoned(type, {tokens, width}),
               dgate_up = bench.poisoned(type, {tokens, 2 * width});
  bench.run(SwiGluForward{.y = y, .gate_up = gate_up});
  bench.run(SwiGluBackward{.dgate_up = dgate_up, .dy = dy, .gate_up = gate_up});
  std::vector<Output> outputs{{"swiglu", bench.values(y)}, {"dgate_up", bench.values(dgate_up)}};
  bench.run(SwiGluBackward{.dgate_up = gate_up, .dy = dy, .gate_up = gate_up});
  outputs.push_back({"dgate_up in place", bench.values(gate_up)});

  const Tensor x = bench.random(type, {tokens, width}, 3), squared = bench.poisoned(type, {tokens, width});
  const Tensor dx = bench.poisoned(type, {tokens, width});
  bench.run(SquaredReluForward{.y = squared, .x = x});
  bench.run(SquaredReluBackward{.dx = dx, .dy = dy, .x = x});
  outputs.push_back({"squared_relu", bench.values(squared)});
  outputs.push_back({"dx", bench.values(dx)});
  bench.run(SquaredReluBackward{.dx = dy, .dy = dy, .x = x});
  outputs.push_back({"dx in place of dy", bench.values(dy)});
  bench.expect_guards_intact();
  return outputs;
}

inline std::vector<Output> run_elementwise(Queue& queue, DType type, std::int64_t rows, std::int64_t width) {
  Workbench bench(queue);
  const Tensor a = bench.random(type, {rows, width}, 1), b = bench.random(type, {rows, width}, 2);
  const Tensor sum = bench.poisoned(type, {rows, width}),
               filled = bench.poisoned(type, {rows, width}, width + 5);
  std::vector<Output> outputs;
  bench.run(Add{.y = sum, .a = a, .b = b});
  outputs.push_back({"sum", bench.values(sum)});
  bench.run(Add{.y = a, .a = a, .b = b});
  outputs.push_back({"sum in place", bench.values(a)});
  bench.run(Fill{.y = filled, .value = 1.5});
  outputs.push_back({"filled", bench.values(filled)});

  const Tensor strided = bench.random(type, {rows, width}, 4, 1, width + 3);
  for (const DType to : {DType::f32, DType::bf16, DType::f16}) {
    const Tensor plain = bench.poisoned(to, {rows, width}),
                 gapped = bench.poisoned(to, {rows, width}, width + 9);
    bench.run(Cast{.y = plain, .x = strided});
    bench.run(Cast{.y = gapped, .x = b});
    outputs.push_back({fmt::format("cast of strided to {}", name(to)), bench.values(plain)});
    outputs.push_back({fmt::format("cast to strided {}", name(to)), bench.values(gapped)});
  }
  const Tensor normal = bench.poisoned(type, {rows, width}, width + 1);
  bench.run(RandomNormal{.y = normal,
                         .site = {.seed = 5, .site = 6, .step = 7},
                         .mean = 0.5,
                         .deviation = 2,
                         .first_row = 3,
                         .first_column = 2,
                         .row_length = width + 4});
  outputs.push_back({"normal", bench.values(normal)});
  bench.expect_guards_intact();
  return outputs;
}

inline std::vector<Output> run_reductions(Queue& queue, DType type, std::int64_t count) {
  Workbench bench(queue);
  const Tensor values = bench.random(statistics_type(type), {count}, 1);
  const Tensor mask = bench.mask(random_integers(count, 2, 0, 2));
  const Tensor masked = bench.of(DType::f64, {1}, {0.25}), squares = bench.of(DType::f64, {1}, {0.25});
  bench.run(MaskedSum{.total = masked, .values = values, .mask = mask, .factor = -1});
  bench.run(SumOfSquares{.total = squares, .values = values});
  std::vector<Output> outputs{{"masked_sum", bench.values(masked)},
                              {"sum_of_squares", bench.values(squares)}};
  bench.expect_guards_intact();
  return outputs;
}

/// `gap`: elements between rows.
inline std::vector<Output> run_bias(Queue& queue, DType type, std::int64_t rows, std::int64_t width,
                                    std::int64_t gap) {
  Workbench bench(queue);
  const DType sums = statistics_type(type);
  const Tensor bias = bench.random(type, {width}, 1),
               y = bench.random(type, {rows, width}, 2, 1, width + gap);
  const Tensor wide = bench.random(sums, {rows, width}, 3, 1, width + gap);
  std::vector<Output> outputs;
  bench.run(AddBias{.y = y, .bias = bias});
  outputs.push_back({"y", bench.values(y)});
  bench.run(AddBias{.y = wide, .bias = bias});
  outputs.push_back({"wide y", bench.values(wide)});

  const Tensor dy = bench.random(type, {rows, width}, 4, 1, width + gap);
  const Tensor fresh = bench.poisoned(sums, {width}), added = bench.random(sums, {width}, 5);
  bench.run(BiasBackward{.dbias = fresh, .dy = dy});
  bench.run(BiasBackward{.dbias = added, .accumulate = Accumulate::yes, .dy = dy});
  outputs.push_back({"dbias", bench.values(fresh)});
  outputs.push_back({"dbias adding", bench.values(added)});
  bench.expect_guards_intact();
  return outputs;
}

inline std::vector<OpCase> elementwise_cases() {
  std::vector<OpCase> cases;
  // Fewer rows than a block takes at once and more than all blocks do; widths of many blocks; none of either.
  for (const auto& [rows, width] : {std::pair<std::int64_t, std::int64_t>{1, 1},
                                    {3, 71},
                                    {7, 8},
                                    {33, 64},
                                    {229, 229},
                                    {5, 18432},
                                    {9001, 24},
                                    {0, 40}}) {
    for (const std::int64_t gap : {0, 8, 3}) {
      cases.push_back({fmt::format("bias_{}x{}_gap_{}", rows, width, gap),
                       {DType::f32, DType::bf16},
                       [=](Queue& queue, DType type) { return run_bias(queue, type, rows, width, gap); }});
    }
  }
  for (const auto& [rows, width] :
       {std::pair<std::int64_t, std::int64_t>{1, 1}, {3, 71}, {33, 64}, {1, 4096}, {229, 229}}) {
    const std::string suffix = fmt::format("_{}x{}", rows, width);
    cases.push_back({"activations" + suffix, {DType::f32, DType::bf16}, [=](Queue& queue, DType type) {
                       return run_activations(queue, type, rows, width);
                     }});
    cases.push_back({"elementwise" + suffix, {DType::f32, DType::bf16}, [=](Queue& queue, DType type) {
                       return run_elementwise(queue, type, rows, width);
                     }});
  }
  for (const std::int64_t count : {1, 71, 4096, 100003}) {
    cases.push_back({fmt::format("reductions_{}", count), {DType::f32}, [=](Queue& queue, DType type) {
                       return run_reductions(queue, type, count);
                     }});
  }
  return cases;
}

inline Tensor tiles_on(Workbench& bench, std::span<const OptimizerSegment> segments) {
  const std::vector<std::int64_t> tiles = optimizer_tiles(segments);
  return bench.of(DType::i64, {std::ssize(tiles) / kTileFields, kTileFields},
                  Values(tiles.begin(), tiles.end()));
}

/// Three steps of AdamW behind GradientSquares and ClipFactor on gradients of their own; then one that a NaN
/// makes it skip, and one that is skipped for that. Two segments lie apart in the weights, the second at an
/// odd place; it neither decays nor counts.
inline std::vector<Output> run_adamw(Queue& queue, DType weight_type, std::int64_t count) {
  Workbench bench(queue);
  const std::int64_t first = (count + 1) / 2, flat = count + 17;
  const std::vector<OptimizerSegment> segments = {
      {.flat = 4, .owned = 0, .count = first, .decays = true, .counted = true},
      {.flat = first + 11, .owned = first, .count = count - first}};
  const Tensor tiles = tiles_on(bench, segments);
  const Tensor weight = bench.random(weight_type, {flat}, 1);
  Values owned = bench.values(weight);
  owned.erase(owned.begin() + 4 + first, owned.begin() + 11 + first);
  owned = Values(owned.begin() + 4, owned.begin() + 4 + count);
  const Tensor master = weight_type == DType::f32 ? Tensor{} : bench.of(DType::f32, {count}, owned);
  const Tensor m = bench.of(DType::f32, {count}, Values(static_cast<std::size_t>(count)));
  const Tensor v = bench.of(DType::f32, {count}, Values(static_cast<std::size_t>(count)));
  Values scalar_values(kStepScalars);
  std::vector<Output> outputs;
  for (int step = 1; step <= 5; ++step) {
    Values gradient = random_values(flat, static_cast<std::uint32_t>(10 + step));
    if (step == 4) gradient[4] = std::nan("");
    const Tensor grad = bench.of(DType::f32, {flat}, gradient), squares = bench.of(DType::f64, {1}, {0});
    const Values host{1e-2, 1 - std::pow(0.9, step), 1 - std::pow(0.95, step)};
    std::copy(host.begin(), host.end(), scalar_values.begin());
    const Tensor scalars = bench.of(DType::f32, {kStepScalars}, scalar_values);
    bench.run(GradientSquares{.total = squares, .grad = grad, .tiles = tiles});
    bench.run(ClipFactor{.scalars = scalars,
                         .sum_of_squares = squares,
                         .loss = bench.of(DType::f64, {1}, {2.5}),
                         .max_norm = 1});
    bench.run(AdamW{.weight = weight,
                    .master = master,
                    .exp_avg = m,
                    .exp_avg_sq = v,
                    .grad = grad,
                    .scalars = scalars,
                    .tiles = tiles,
                    .beta1 = 0.9,
                    .beta2 = 0.95,
                    .eps = 1e-8,
                    .weight_decay = 0.1});
    scalar_values = bench.values(scalars);
    Values written = scalar_values;
    if (step == 4) written[static_cast<std::size_t>(StepScalar::grad_norm)] = 0;  // NaN
    if (step == 4) written[static_cast<std::size_t>(StepScalar::clip_factor)] = 0;
    outputs.push_back({fmt::format("scalars {}", step), written});
    outputs.push_back({fmt::format("weight {}", step), bench.values(weight)});
    outputs.push_back({fmt::format("exp_avg_sq {}", step), bench.values(v)});
  }
  bench.expect_guards_intact();
  return outputs;
}

inline std::vector<OpCase> optimizer_cases() {
  std::vector<OpCase> cases;
  for (const std::int64_t count : {1, 71, 4096, 10007}) {
    cases.push_back(
        {fmt::format("adamw_{}", count), {DType::f32, DType::bf16}, [=](Queue& queue, DType type) {
           return run_adamw(queue, type == DType::f64 ? DType::f32 : type, count);
         }});
  }
  return cases;
}

}  // namespace verne::testing
