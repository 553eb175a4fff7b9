// What Engine::plan says a rank needs, against closed formulas and against a real engine.
#include <gtest/gtest.h>

#include "small_engine.hpp"
#include "testing.hpp"
#include "verne/nn/model_tensors.hpp"

namespace verne {
namespace {

using testing::SmallEngine;

ModelConfig recipe(const std::string& name) {
  const auto file =
      testing::golden_dir().parent_path().parent_path() / "inputs" / "recipes" / name / "config.json";
  return parse_model_config(testing::read_text(file), file.string());
}

HostPlan plan_of(const ModelConfig& config, int tensor, int ranks, const HostOptions& options) {
  const ParallelLayout layout{.grid = ProcessGrid(0, ranks, {.tensor = tensor}),
                              .sequence = TensorParallel::Sequence::sharded};
  if (options.purpose == Purpose::inference) return ModelHost::plan(config, layout, options);
  return Engine::plan(config, layout, {.host = options, .optimizer = {}});
}

std::int64_t peak(const MemoryUse& memory, MemoryKind kind) {
  return memory.peak[static_cast<std::size_t>(kind)];
}

/// Masters and moments, and a table with 32 bytes for each 8,192 elements, or for a parameter's rest.
void expect_optimizer(const HostPlan& plan, std::int64_t state_bytes) {
  const std::int64_t bytes = peak(plan.memory, MemoryKind::optimizer);
  EXPECT_GE(bytes, state_bytes + state_bytes / (12 * 8192) * 32);
  EXPECT_LT(bytes, state_bytes + state_bytes / 1000);
}

/// Every extent of these models is a multiple of 128, so that nothing is padded: bf16 weights, float32
/// gradients, and master and two moments in float32, shared among data ranks.
TEST(Plan, WeightsGradientsAndOptimizerFollowClosedFormulas) {
  for (const char* name : {"qwen3_0p6b", "llama31_8b"}) {
    const ModelConfig config = recipe(name);
    for (int tensor : {1, 2, 8}) {
      const std::int64_t hidden = config.hidden_size, t = tensor;
      const std::int64_t q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
      const std::int64_t norms =
          hidden * (2 * config.layers + 1) + (config.qk_norm ? 2 * config.head_dim * config.layers : 0);
      const std::int64_t layer = 2 * hidden * q + 2 * hidden * kv + 3 * hidden * config.intermediate_size;
      const std::int64_t elements =
          (config.layers * layer + (config.tied ? 1 : 2) * config.vocab_size * hidden) / t + norms;
      if (tensor == 1) {
        EXPECT_EQ(elements, parameter_count(config));
      }
      for (int data : {1, 2}) {
        SCOPED_TRACE(fmt::format("{} tensor {} data {}", name, tensor, data));
        const HostPlan plan = plan_of(
            config, tensor, tensor * data,
            {.batch = {
                 .rows = 1, .seq_length = 512, .table = DocumentTable::uniform, .document_capacity = 1}});
        EXPECT_EQ(peak(plan.memory, MemoryKind::weights), 2 * elements);
        EXPECT_EQ(peak(plan.memory, MemoryKind::gradients), 4 * elements);
        expect_optimizer(plan, 12 * elements / data);
      }
    }
  }
}

/// Only float32 weights are their own masters; inference has neither gradients nor optimizer.
TEST(Plan, PurposeAndDtypeDecideWhatExists) {
  const ModelConfig config = recipe("qwen3_0p6b");
  const MicroBatchShape shape{
      .rows = 1, .seq_length = 256, .table = DocumentTable::uniform, .document_capacity = 1};
  const std::int64_t n = parameter_count(config);
  const HostPlan wide = plan_of(config, 1, 1, {.dtype = DType::f32, .batch = shape});
  EXPECT_EQ(peak(wide.memory, MemoryKind::weights), 4 * n);
  expect_optimizer(wide, 8 * n);
  const HostPlan inference = plan_of(config, 1, 1, {.purpose = Purpose::inference, .batch = shape});
  EXPECT_EQ(peak(inference.memory, MemoryKind::weights), 2 * n);
  EXPECT_EQ(peak(inference.memory, MemoryKind::gradients), 0);
  EXPECT_EQ(peak(inference.memory, MemoryKind::optimizer), 0);
  EXPECT_EQ(inference.arenas.slot, 0);
}

TEST(Plan, RecomputingMoreKeepsLess) {
  for (const char* name : {"qwen3_0p6b", "llama31_8b", "nemotron3_8b"}) {
    const ModelConfig config = recipe(name);
    std::vector<std::int64_t> saved, activations;
    for (Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
      const HostPlan plan = plan_of(
          config, 2, 2,
          {.recompute = recompute,
           .batch = {
               .rows = 1, .seq_length = 2048, .table = DocumentTable::uniform, .document_capacity = 1}});
      saved.push_back(plan.arenas.slot);
      activations.push_back(peak(plan.memory, MemoryKind::activations));
      EXPECT_EQ(activations.back(), plan.arenas.slot + plan.arenas.replay);
    }
    EXPECT_LT(saved[1], saved[0] * 9 / 10) << name;
    EXPECT_LT(saved[2], saved[1] / 4) << name;
    EXPECT_LT(activations[1], activations[0]) << name;
    EXPECT_LT(activations[2], activations[1]) << name;
    // Of a fully recomputed layer its input alone is kept, a tensor rank's share of the tokens in bf16.
    const std::int64_t inputs = config.layers * 1024 * config.hidden_size * 2;
    EXPECT_GE(saved[2], inputs) << name;
  }
}

TEST(Plan, OperationsOfAStepAreThoseOfTheModel) {
  const ModelConfig config = recipe("llama31_8b");
  const EngineOptions options{
      .host = {
          .batch = {.rows = 1, .seq_length = 1024, .table = DocumentTable::uniform, .document_capacity = 1}}};
  MetaTrace trace;
  ParallelRuntime runtime = ParallelRuntime::meta({.grid = ProcessGrid(0, 1, {})}, config, trace);
  Engine engine(config, runtime, options, kUnboundedArenas);
  engine.train_step(blank_batch(options.host), 1, 0);
  const double weights =
      static_cast<double>(parameter_count(config) - config.vocab_size * config.hidden_size -
                          config.hidden_size * (2 * config.layers + 1));
  EXPECT_DOUBLE_EQ(trace.operations().at("Matmul").cost.flops, 6 * weights * 1024);
  EXPECT_EQ(trace.operations().at("AttentionForward").calls, config.layers);
  EXPECT_EQ(trace.operations().at("AttentionBackward").calls, config.layers);
  // However many tensors and buckets there are.
  EXPECT_EQ(trace.operations().at("GradientSquares").calls, 1);
  EXPECT_EQ(trace.operations().at("AdamW").calls, 1);
}

/// The arenas throw where a step needs more than was planned.
TEST(Plan, RealEngineStaysWithinIt) {
  const HostGroup alone;
  for (const char* family : {"llama", "qwen3", "nemotron"}) {
    for (Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
      for (DType dtype : {DType::f32, DType::bf16}) {
        SCOPED_TRACE(fmt::format("{} {} {}", family, static_cast<int>(recompute), name(dtype)));
        const ModelConfig config = testing::small_config(family);
        SmallEngine engine(alone, config,
                           {.micro_batch = 3, .micro_batches = 2, .dtype = dtype, .recompute = recompute},
                           13);
        const auto rows = testing::random_rows(4, {1, 12, 0, 7, 3, 3}, 13, config.vocab_size);
        for (std::int64_t step = 1; step <= 2; ++step) engine.step(engine.batch(rows), step, 1e-3);
        engine.log_probabilities(testing::micro_batch_of(std::span(rows).first(3), 13));
        for (int i = 0; i < kMemoryKinds; ++i) {
          const auto kind = static_cast<MemoryKind>(i);
          // Beside the arena a plan has the workspaces of a GPU's kernels; those of a CPU need none.
          const std::int64_t planned =
              kind == MemoryKind::scratch ? engine.plan().arenas.scratch : peak(engine.plan().memory, kind);
          EXPECT_EQ(peak(engine->memory(), kind), planned) << name(kind);
        }
      }
    }
  }
}

TEST(Plan, SmallerArenasAreTooSmall) {
  const HostGroup alone;
  const ModelConfig config = testing::small_config("qwen3");
  const testing::SmallLayout layout{.micro_batch = 2};
  const EngineOptions options = testing::small_options(
      layout, {.rows = 2, .seq_length = 13, .table = DocumentTable::uniform, .document_capacity = 2});
  const auto rows = testing::random_rows(4, {1, 12}, 13, config.vocab_size);
  const StepBatch batch{.counted_tokens = 13, .micro_batches = 1, .micro_batch = [&](std::int64_t) {
                          return testing::micro_batch_of(rows, 13);
                        }};
  const ArenaSizes planned = Engine::plan(config, layout.on(0, 1), options).arenas;
  for (std::int64_t ArenaSizes::*arena : {&ArenaSizes::slot, &ArenaSizes::replay, &ArenaSizes::scratch}) {
    ArenaSizes less = planned;
    less.*arena -= 256;
    ParallelRuntime runtime = ParallelRuntime::cpu(alone, layout.on(0, 1), config, 1);
    Engine engine(config, runtime, options, less);
    engine.initialize_random(1);
    EXPECT_ANY_THROW({
      engine.train_step(batch, 1, 1e-3);
      engine.read_step();
      engine.host().log_probabilities(batch, [](std::int64_t, std::span<const float>) {});
    });
  }
}

/// Stages of a pipeline hold micro-batches in flight: the first most, and each the layers that it has.
TEST(Plan, PipelineStagesHoldWhatIsInFlight) {
  const ModelConfig config = recipe("llama31_8b");
  const HostOptions options{
      .batch = {.rows = 1, .seq_length = 1024, .table = DocumentTable::uniform, .document_capacity = 1},
      .micro_batches = 8,
      .trains = {}};
  std::vector<HostPlan> plans;
  for (int stage = 0; stage < 4; ++stage)
    plans.push_back(Engine::plan(config, {.grid = ProcessGrid(stage, 4, {.pipeline = 4})},
                                 {.host = options, .optimizer = {}}));
  for (int stage = 0; stage < 4; ++stage) {
    const HostPlan& plan = plans[static_cast<std::size_t>(stage)];
    EXPECT_EQ(plan.slots, 4 - stage);
    EXPECT_EQ(peak(plan.memory, MemoryKind::activations), plan.slots * plan.arenas.slot + plan.arenas.replay);
  }
  std::int64_t weights = 0;
  for (const HostPlan& plan : plans) weights += peak(plan.memory, MemoryKind::weights);
  EXPECT_EQ(weights, 2 * parameter_count(config));
}

}  // namespace
}  // namespace verne
