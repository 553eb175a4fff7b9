// Speed of the CPU kernels on shapes of small models. Not a test: run build/<preset>/bin/bench_ops.
#include <benchmark/benchmark.h>

#include "verne/ops/attention.hpp"
#include "verne/ops/cross_entropy.hpp"
#include "verne/ops/elementwise.hpp"
#include "verne/ops/matmul.hpp"
#include "verne/ops/optimizer.hpp"
#include "verne/ops/rms_norm.hpp"
#include "verne/ops/run.hpp"

namespace verne {
namespace {

/// A queue and tensors of random content on it.
class Setting {
 public:
  explicit Setting(benchmark::State& state) : queue(static_cast<int>(state.range(0))) {}
  Tensor normal(DType type, Shape shape) {
    buffers_.emplace_back(queue, type, shape, MemoryKind::scratch);
    const Tensor flat = buffers_.back().as(type, {shape.count()});
    run(queue, RandomNormal{.y = flat, .site = {.seed = buffers_.size()}, .row_length = shape.count()});
    return buffers_.back().tensor();
  }
  Tensor zeros(DType type, Shape shape) {
    buffers_.emplace_back(queue, type, shape, MemoryKind::scratch);
    queue.zero(buffers_.back().tensor());
    return buffers_.back().tensor();
  }
  template <class Operation>
  void measure(benchmark::State& state, const Operation& operation) {
    for (auto _ : state) run(queue, operation);
    const Cost cost = operation.cost();
    const auto runs = static_cast<double>(state.iterations());
    state.counters["flop/s"] = benchmark::Counter(cost.flops * runs, benchmark::Counter::kIsRate);
    state.counters["bytes/s"] = benchmark::Counter(cost.bytes * runs, benchmark::Counter::kIsRate);
  }

  CpuQueue queue;

 private:
  std::vector<Buffer> buffers_;
};

DType storage(const benchmark::State& state) {
  return state.range(1) == 16 ? DType::bf16 : DType::f32;
}

void matmul(benchmark::State& state) {
  Setting setting(state);
  const std::int64_t m = state.range(2), n = state.range(3), k = state.range(4);
  setting.measure(state, Matmul{.d = setting.zeros(storage(state), {m, n}),
                                .a = setting.normal(storage(state), {m, k}),
                                .b = setting.normal(storage(state), {n, k}),
                                .transpose_b = Transpose::yes});
}
BENCHMARK(matmul)
    ->ArgNames({"threads", "bits", "m", "n", "k"})
    ->ArgsProduct({{1, 2}, {32, 16}, {512}, {1024}, {256}})
    ->ArgsProduct({{1, 2}, {32, 16}, {2048}, {2048}, {1024}})
    ->UseRealTime();

struct Heads {
  Tensor q, k, v, out, log_sum_exp;
  AttentionLayout layout;
};
Heads heads(Setting& setting, DType type, std::int64_t length) {
  const std::int64_t heads = 8, kv_heads = 4, dim = 64;
  return {.q = setting.normal(type, {length, heads, dim}),
          .k = setting.normal(type, {length, kv_heads, dim}),
          .v = setting.normal(type, {length, kv_heads, dim}),
          .out = setting.zeros(type, {length, heads, dim}),
          .log_sum_exp = setting.zeros(DType::f32, {length * heads}),
          .layout = self_attention(uniform_documents(1, length))};
}

void attention_forward(benchmark::State& state) {
  Setting setting(state);
  const Heads h = heads(setting, storage(state), state.range(2));
  setting.measure(state, AttentionForward{.out = h.out,
                                          .log_sum_exp = h.log_sum_exp,
                                          .q = h.q,
                                          .k = h.k,
                                          .v = h.v,
                                          .layout = h.layout,
                                          .scale = 0.125});
}
void attention_backward(benchmark::State& state) {
  Setting setting(state);
  const Heads h = heads(setting, storage(state), state.range(2));
  run(setting.queue, AttentionForward{.out = h.out,
                                      .log_sum_exp = h.log_sum_exp,
                                      .q = h.q,
                                      .k = h.k,
                                      .v = h.v,
                                      .layout = h.layout,
                                      .scale = 0.125});
  setting.measure(state, AttentionBackward{.dq = setting.zeros(storage(state), h.q.shape()),
                                           .dk = setting.zeros(storage(state), h.k.shape()),
                                           .dv = setting.zeros(storage(state), h.v.shape()),
                                           .dout = setting.normal(storage(state), h.q.shape()),
                                           .q = h.q,
                                           .k = h.k,
                                           .v = h.v,
                                           .out = h.out,
                                           .log_sum_exp = h.log_sum_exp,
                                           .layout = h.layout,
                                           .scale = 0.125});
}
BENCHMARK(attention_forward)
    ->ArgNames({"threads", "bits", "length"})
    ->ArgsProduct({{1, 2}, {32, 16}, {256, 2048}})
    ->UseRealTime();
BENCHMARK(attention_backward)
    ->ArgNames({"threads", "bits", "length"})
    ->ArgsProduct({{1, 2}, {32, 16}, {256, 2048}})
    ->UseRealTime();

void rms_norm_forward(benchmark::State& state) {
  Setting setting(state);
  const Shape shape{state.range(2), state.range(3)};
  const DType type = storage(state);
  setting.measure(state, RmsNormForward{.y = setting.zeros(type, shape),
                                        .rstd = setting.zeros(DType::f32, {shape[0]}),
                                        .sum = setting.zeros(type, shape),
                                        .x = setting.normal(type, shape),
                                        .residual = setting.normal(type, shape),
                                        .weight = setting.normal(type, {shape[1]})});
}
void rms_norm_backward(benchmark::State& state) {
  Setting setting(state);
  const Shape shape{state.range(2), state.range(3)};
  const DType type = storage(state);
  setting.measure(state, RmsNormBackward{.dx = setting.zeros(type, shape),
                                         .dweight = setting.zeros(DType::f32, {shape[1]}),
                                         .dy = setting.normal(type, shape),
                                         .dsum = setting.normal(type, shape),
                                         .s = setting.normal(type, shape),
                                         .rstd = setting.zeros(DType::f32, {shape[0]}),
                                         .weight = setting.normal(type, {shape[1]})});
}
BENCHMARK(rms_norm_forward)
    ->ArgNames({"threads", "bits", "rows", "width"})
    ->ArgsProduct({{1, 2}, {32, 16}, {2048}, {1024}})
    ->UseRealTime();
BENCHMARK(rms_norm_backward)
    ->ArgNames({"threads", "bits", "rows", "width"})
    ->ArgsProduct({{1, 2}, {32, 16}, {2048}, {1024}})
    ->UseRealTime();

void cross_entropy_statistics(benchmark::State& state) {
  Setting setting(state);
  const std::int64_t tokens = state.range(2), columns = state.range(3);
  setting.measure(state, CrossEntropyStatistics{.stats = setting.zeros(DType::f32, {tokens, 3}),
                                                .logits = setting.normal(storage(state), {tokens, columns}),
                                                .targets = setting.zeros(DType::i32, {tokens}),
                                                .valid_columns = columns});
}
void cross_entropy_backward(benchmark::State& state) {
  Setting setting(state);
  const std::int64_t tokens = state.range(2), columns = state.range(3);
  const Tensor mask = setting.zeros(DType::u8, {tokens}), log_sum_exp = setting.zeros(DType::f32, {tokens});
  for (std::uint8_t& one : mask.span<std::uint8_t>()) one = 1;
  run(setting.queue, Fill{.y = log_sum_exp, .value = 12.4});
  setting.measure(state, CrossEntropyBackward{.dlogits = setting.zeros(storage(state), {tokens, columns}),
                                              .logits = setting.normal(storage(state), {tokens, columns}),
                                              .targets = setting.zeros(DType::i32, {tokens}),
                                              .log_sum_exp = log_sum_exp,
                                              .loss_mask = mask,
                                              .scale = setting.normal(DType::f32, {1}),
                                              .valid_columns = columns});
}
BENCHMARK(cross_entropy_statistics)
    ->ArgNames({"threads", "bits", "tokens", "columns"})
    ->ArgsProduct({{1, 2}, {32, 16}, {128}, {151936}})
    ->UseRealTime();
BENCHMARK(cross_entropy_backward)
    ->ArgNames({"threads", "bits", "tokens", "columns"})
    ->ArgsProduct({{1, 2}, {32, 16}, {128}, {151936}})
    ->UseRealTime();

void adamw(benchmark::State& state) {
  Setting setting(state);
  const Shape shape{state.range(2)};
  const Tensor scalars = setting.zeros(DType::f32, {kStepScalars});
  for (float& one : scalars.span<float>().first(4)) one = 0.1f;
  const std::vector<OptimizerSegment> all = {{.count = shape.count(), .decays = true, .counted = true}};
  const std::vector<std::int64_t> rows = optimizer_tiles(all);
  const Tensor tiles = setting.zeros(DType::i64, {std::ssize(rows) / kTileFields, kTileFields});
  std::copy(rows.begin(), rows.end(), tiles.data<std::int64_t>());
  setting.measure(state, AdamW{.weight = setting.normal(storage(state), shape),
                               .master = setting.normal(DType::f32, shape),
                               .exp_avg = setting.zeros(DType::f32, shape),
                               .exp_avg_sq = setting.zeros(DType::f32, shape),
                               .grad = setting.normal(DType::f32, shape),
                               .scalars = scalars,
                               .tiles = tiles});
}
BENCHMARK(adamw)
    ->ArgNames({"threads", "bits", "elements"})
    ->ArgsProduct({{1, 2}, {32, 16}, {1 << 22}})
    ->UseRealTime();

}  // namespace
}  // namespace verne

BENCHMARK_MAIN();
