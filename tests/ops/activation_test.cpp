#include "verne/ops/activation.hpp"

#include "fixture.hpp"
#include "verne/ops/run.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {
namespace {

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

TEST(SwiGlu, ForwardIsTheFormula) {
  CpuQueue queue(2);
  for (const DType type : {DType::f64, DType::f32, DType::bf16}) {
    Workbench bench(queue);
    const Tensor gate_up = bench.random(type, {3, 2 * 37}, 1, 4), y = bench.poisoned(type, {3, 37});
    run(queue, SwiGluForward{.y = y, .gate_up = gate_up});
    const Values in = bench.values(gate_up);
    Values expected;
    for (std::size_t r = 0; r < 3; ++r) {
      for (std::size_t c = 0; c < 37; ++c)
        expected.push_back(in[r * 74 + c] * sigmoid(in[r * 74 + c]) * in[r * 74 + 37 + c]);
    }
    expect_close(bench.values(y), expected, tolerance(type).formula);
    bench.expect_guards_intact();
  }
}

TEST(SwiGlu, HoldsForLargeGates) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor gate_up = bench.of(DType::f32, {1, 8}, {-1000, 1000, -88.9, std::nan(""), 2, 2, 2, 2});
  const Tensor y = bench.poisoned(DType::f32, {1, 4});
  run(queue, SwiGluForward{.y = y, .gate_up = gate_up});
  const Values values = bench.values(y);
  EXPECT_EQ(values[0], 0);
  EXPECT_EQ(values[1], 2000);
  EXPECT_NEAR(values[2], 0, 1e-35);
  EXPECT_TRUE(std::isnan(values[3]));
}

TEST(SwiGlu, BackwardIsTheGradientInPlaceToo) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor gate_up = bench.random(DType::f64, {2, 10}, 1), y = bench.poisoned(DType::f64, {2, 5});
  const Tensor dy = bench.random(DType::f64, {2, 5}, 2), dgate_up = bench.poisoned(DType::f64, {2, 10});
  const auto loss = [&] {
    run(queue, SwiGluForward{.y = y, .gate_up = gate_up});
    return dot(bench.values(y), bench.values(dy));
  };
  run(queue, SwiGluBackward{.dgate_up = dgate_up, .dy = dy, .gate_up = gate_up});
  expect_gradient(gate_up, bench.values(dgate_up), loss, "dgate_up");
  run(queue, SwiGluBackward{.dgate_up = gate_up, .dy = dy, .gate_up = gate_up});
  EXPECT_EQ(bench.values(gate_up), bench.values(dgate_up));
}

TEST(SquaredRelu, ForwardAndBackwardAreTheFormula) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor x = bench.of(DType::f32, {2, 2}, {-3, 0, 2, 1.5}), y = bench.poisoned(DType::f32, {2, 2});
  run(queue, SquaredReluForward{.y = y, .x = x});
  EXPECT_EQ(bench.values(y), (Values{0, 0, 4, 2.25}));
  const Tensor dy = bench.of(DType::f32, {2, 2}, {5, 5, 5, 10});
  run(queue, SquaredReluBackward{.dx = x, .dy = dy, .x = x});
  EXPECT_EQ(bench.values(x), (Values{0, 0, 20, 30}));
}

TEST(SquaredRelu, BackwardIsTheGradient) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor x = bench.random(DType::f64, {13}, 1), y = bench.poisoned(DType::f64, {13}),
               dy = bench.random(DType::f64, {13}, 2);
  const Values upstream = bench.values(dy);
  const auto loss = [&] {
    run(queue, SquaredReluForward{.y = y, .x = x});
    return dot(bench.values(y), upstream);
  };
  run(queue, SquaredReluBackward{.dx = dy, .dy = dy, .x = x});
  expect_gradient(x, bench.values(dy), loss, "dx");
}

TEST(ActivationCheck, NamesWhatIsWrong) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor y = bench.poisoned(DType::f32, {2, 3});
  EXPECT_THROW(run(queue, SwiGluForward{.y = y, .gate_up = bench.random(DType::f32, {2, 5}, 1)}),
               InternalError);
  EXPECT_THROW(run(queue, SquaredReluForward{.y = y, .x = bench.random(DType::bf16, {2, 3}, 1)}),
               InternalError);
}

}  // namespace
}  // namespace verne::testing
