// Frozen parameters are real: no gradient, no state, never changed; what trains does as if they were
// constants.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <mpi.h>

#include "small_engine.hpp"
#include "testing.hpp"
#include "verne/nn/model_tensors.hpp"
#include "verne/train/engine_state.hpp"

namespace verne {
namespace {

using ::testing::Each;
using ::testing::Not;
using testing::SmallEngine;
using testing::SmallLayout;

constexpr std::int64_t kLength = 15;

/// The embedding and every second block.
bool trains(std::string_view name) {
  return name != "model.embed_tokens.weight" && !name.starts_with("model.layers.1.") &&
         !name.starts_with("model.layers.3.");
}
MATCHER(IsTrained, "") {
  return trains(arg.first);
}

ModelConfig config_of(const char* family) {
  ModelConfig config = testing::small_config(family);
  config.layers = 4;
  config.windows.assign(4, 0);
  config.tied = false;
  return config;
}

class Frozen : public ::testing::Test {
 protected:
  HostGroup world{MPI_COMM_WORLD};

  std::vector<SmallLayout> layouts(const ModelConfig& config) const {
    std::vector<SmallLayout> all = testing::small_layouts(world.size(), config);
    for (SmallLayout& layout : all)
      layout.micro_batches = 4 * layout.tensor * layout.context * layout.pipeline / world.size();
    std::erase_if(all, [](const SmallLayout& layout) { return layout.micro_batches == 0; });
    return all;
  }
  StepBatch batch(SmallEngine& engine, std::int64_t step) {
    rows_ = testing::random_rows(static_cast<std::uint64_t>(step), {3, 14, 1, 8}, kLength, 131);
    return engine.batch(rows_);
  }
  std::vector<testing::Row> rows_;
};

/// The gradients of what trains are those of a run in which all trains; the rest has none.
TEST_F(Frozen, GradientsOfTheOthersAreTheSame) {
  for (const char* family : {"llama", "qwen3", "nemotron"}) {
    const ModelConfig config = config_of(family);
    for (SmallLayout layout : layouts(config)) {
      for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
        layout.recompute = recompute;
        SCOPED_TRACE(fmt::format("{}, {}, recompute {}", family, layout.text(), static_cast<int>(recompute)));
        layout.trains = {};
        SmallEngine whole(world, config, layout, kLength);
        layout.trains = trains;
        SmallEngine partly(world, config, layout, kLength);
        EXPECT_EQ(partly->accumulate_gradients(batch(partly, 1)),
                  whole->accumulate_gradients(batch(whole, 1)));
        const auto found = partly.gradients(), expected = whole.gradients();
        EXPECT_THAT(found, Each(IsTrained()));
        for (const auto& [name, values] : expected)
          if (trains(name)) {
            EXPECT_EQ(found.at(name), values) << name;
          }
      }
    }
  }
}

TEST_F(Frozen, WeightsAreNeverChangedAndHaveNoState) {
  const ModelConfig config = config_of("qwen3");
  for (SmallLayout layout : layouts(config)) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      layout.dtype = dtype;
      layout.trains = trains;
      SCOPED_TRACE(fmt::format("{}, {}", layout.text(), name(dtype)));
      SmallEngine engine(world, config, layout, kLength);
      const auto before = engine.weights();
      for (std::int64_t step = 1; step <= 3; ++step) engine.step(batch(engine, step), step, 1e-2);
      const auto after = engine.weights();
      for (const auto& [name, values] : before) {
        if (trains(name)) {
          EXPECT_NE(after.at(name), values) << name;
        } else {
          EXPECT_EQ(after.at(name), values) << name;
        }
      }
      EXPECT_THAT(engine.state(OptimizerState::exp_avg), Each(IsTrained()));
      EXPECT_THAT(engine.state(OptimizerState::master), Each(IsTrained()));
    }
  }
}

/// A checkpoint has no state of frozen tensors, and brings their weights back.
TEST_F(Frozen, ComesBackFromACheckpoint) {
  std::optional<testing::TemporaryDirectory> directory;
  if (world.rank() == 0) directory.emplace();
  const std::filesystem::path path =
      std::filesystem::path(world.broadcast_text(directory ? directory->path().string() : "", 0)) /
      "saved.h5";
  const ModelConfig config = config_of("qwen3");
  for (SmallLayout layout : layouts(config)) {
    layout.dtype = DType::bf16;
    layout.trains = trains;
    SCOPED_TRACE(layout.text());
    SmallEngine straight(world, config, layout, kLength);
    for (std::int64_t step = 1; step <= 2; ++step) straight.step(batch(straight, step), step, 1e-2);
    CheckpointContent content = engine_state(straight.engine(), CheckpointKind::resumable);
    content.side_files.config = "{}";
    CheckpointSaver(world).save(path, straight.runtime().compute(), content);
    world.barrier();
    SmallEngine resumed(world, config, layout, kLength);
    resumed->initialize_random(99);
    const CheckpointReader reader(path, world);
    for (const TensorInfo& tensor : reader.tensors(CheckpointGroup::exp_avg).tensors())
      EXPECT_TRUE(trains(tensor.name)) << tensor.name;
    restore_engine(resumed.engine(), reader, world);
    EXPECT_EQ(resumed.weights(), straight.weights());
    const StepResult expected = straight.step(batch(straight, 3), 3, 1e-2),
                     found = resumed.step(batch(resumed, 3), 3, 1e-2);
    EXPECT_EQ(found.loss, expected.loss);
    EXPECT_EQ(resumed.weights(), straight.weights());
  }
  world.barrier();
}

/// Memory: gradients and optimizer state of what trains alone, and less kept for backward.
TEST_F(Frozen, CostsItsWeightsAlone) {
  const ModelConfig config = config_of("llama");
  SmallLayout layout;
  const auto peak = [&](MemoryKind kind) {
    const HostPlan plan = Engine::plan(
        config, layout.on(0, 1),
        testing::small_options(
            layout, {.rows = 1, .seq_length = 16, .table = DocumentTable::uniform, .document_capacity = 1}));
    return plan.memory.peak[static_cast<std::size_t>(kind)];
  };
  std::int64_t trained = (144 - 131) * config.hidden_size;  // the head's padded rows
  std::int64_t tensors = 0;
  for (const ModelTensor& tensor : model_tensors(config)) {
    if (!trains(tensor.name)) continue;
    trained += tensor.shape.count();
    ++tensors;
  }
  const std::int64_t weights = peak(MemoryKind::weights), activations = peak(MemoryKind::activations);
  layout.trains = trains;
  EXPECT_EQ(peak(MemoryKind::weights), weights);
  EXPECT_GE(peak(MemoryKind::gradients), 4 * trained);
  EXPECT_LT(peak(MemoryKind::gradients), 4 * (trained + 64 * tensors));  // begin at multiples of 64
  EXPECT_LT(peak(MemoryKind::optimizer), 9 * trained);                   // float32: two moments, and a table
  EXPECT_LT(peak(MemoryKind::activations), activations);
}

}  // namespace
}  // namespace verne
