// A run that goes on from a checkpoint: the same bits under the same layout, the same losses under any other.
#include <gtest/gtest.h>
#include <mpi.h>

#include "small_engine.hpp"
#include "testing.hpp"
#include "verne/train/engine_state.hpp"

namespace verne {
namespace {

using testing::Row;
using testing::SmallEngine;
using testing::SmallLayout;

constexpr std::int64_t kLength = 15;

class Resume : public ::testing::Test {
 protected:
  Resume() : world(MPI_COMM_WORLD) {
    if (world.rank() == 0) directory_.emplace();
    folder = world.broadcast_text(directory_ ? directory_->path().string() : "", 0);
  }
  ~Resume() override { world.barrier(); }

  StepResult step(SmallEngine& engine, std::int64_t number) {
    const auto rows =
        testing::random_rows(static_cast<std::uint64_t>(100 + number % 7), {3, 14, 1, 0, 8, 8, 2, 11},
                             kLength, engine.host().config().vocab_size);
    return engine.step(engine.batch(rows), number, 3e-3);
  }
  void save(SmallEngine& engine, const std::filesystem::path& path) {
    CheckpointContent content = engine_state(engine.engine(), CheckpointKind::resumable);
    content.state.values["step"] = 5;
    content.side_files.config = "{}";
    CheckpointSaver(world).save(path, engine.runtime().compute(), content);
    world.barrier();
  }
  void restore(SmallEngine& engine, const std::filesystem::path& path) {
    engine->initialize_random(99);  // nothing of it may remain
    restore_engine(engine.engine(), CheckpointReader(path, world), world);
  }
  /// Layouts of all ranks with eight rows a step.
  std::vector<SmallLayout> layouts(const ModelConfig& config, std::int64_t micro_batch) const {
    std::vector<SmallLayout> all = testing::small_layouts(world.size(), config);
    for (SmallLayout& layout : all) {
      layout.micro_batch = micro_batch;
      layout.micro_batches =
          8 * layout.tensor * layout.context * layout.pipeline / world.size() / micro_batch;
    }
    return all;
  }

  HostGroup world;
  std::filesystem::path folder;

 private:
  std::optional<testing::TemporaryDirectory> directory_;
};

TEST_F(Resume, SameLayoutRepeatsEveryBit) {
  const ModelConfig config = testing::small_config("qwen3");
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (SmallLayout layout : layouts(config, 2)) {
      layout.dtype = dtype;
      SCOPED_TRACE(fmt::format("{}, {}", layout.text(), name(dtype)));
      const auto path = folder / "same.h5";
      SmallEngine straight(world, config, layout, kLength);
      for (std::int64_t i = 1; i <= 5; ++i) step(straight, i);
      save(straight, path);
      SmallEngine resumed(world, config, layout, kLength);
      restore(resumed, path);
      EXPECT_EQ(resumed.weights(), straight.weights());
      for (std::int64_t i = 6; i <= 10; ++i) {
        const StepResult expected = step(straight, i), found = step(resumed, i);
        EXPECT_EQ(found.loss, expected.loss) << "step " << i;
        EXPECT_EQ(found.grad_norm, expected.grad_norm) << "step " << i;
      }
      EXPECT_EQ(resumed.weights(), straight.weights());
      EXPECT_EQ(resumed.state(OptimizerState::exp_avg_sq), straight.state(OptimizerState::exp_avg_sq));
    }
  }
}

/// From every layout to the next, and back to the first.
TEST_F(Resume, AnotherLayoutFollowsTheSameLosses) {
  if (world.size() == 1) GTEST_SKIP() << "one rank has one layout";
  const ModelConfig config = testing::small_config("llama", 131, 2);
  const std::vector<SmallLayout> all = layouts(config, 1);
  SmallEngine straight(world, config, all.front(), kLength);
  std::vector<double> expected;
  for (std::int64_t i = 1; i <= 4 * std::ssize(all) + 4; ++i) expected.push_back(step(straight, i).loss);
  EXPECT_LT(expected.back(), 0.9 * expected.front()) << "it learns";
  std::int64_t done = 0;
  const auto path = folder / "chain.h5";
  for (std::size_t i = 0; i <= all.size(); ++i) {
    const SmallLayout& layout = all[i % all.size()];
    SCOPED_TRACE(fmt::format("link {}: {}", i, layout.text()));
    SmallEngine engine(world, config, layout, kLength);
    if (i > 0) restore(engine, path);
    for (const std::int64_t last = done + 4; done < last; ++done) {
      const double reference = expected[static_cast<std::size_t>(done)];
      EXPECT_NEAR(step(engine, done + 1).loss, reference, 1e-5 * reference) << "step " << done + 1;
    }
    save(engine, path);
  }
}

}  // namespace
}  // namespace verne
