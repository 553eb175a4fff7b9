// A run that goes on from a checkpoint: the same bits under the same layout, the same losses under any other.
#include <gtest/gtest.h>
#include <mpi.h>

#include <array>

#include "small_engine.hpp"
#include "testing.hpp"
#include "verne/checkpoint/checkpoint.hpp"
#include "verne/checkpoint/reader.hpp"
#include "verne/io/load.hpp"

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
    const auto rows = testing::random_rows(static_cast<std::uint64_t>(100 + number % 7),
                                           {3, 14, 1, 0, 8, 8, 2, 11}, kLength, engine->config().vocab_size);
    return engine->train_step(engine.batch(rows), number, 3e-3);
  }
  void save(SmallEngine& engine, const std::filesystem::path& path, DType dtype) {
    CheckpointContent content;
    const auto tensors = [&](DType type) {
      std::vector<TensorInfo> infos;
      for (const WeightSpec& spec : weight_specs(engine->config()))
        infos.push_back({spec.name, type, Shape(spec.shape)});
      return infos;
    };
    const auto state = [&](OptimizerState which) {
      return GroupContent{tensors(DType::f32), engine->optimizer_parts(which, Copies::one)};
    };
    content.model = {tensors(dtype), engine->owned_weight_parts(dtype)};
    content.master = state(OptimizerState::master);
    content.exp_avg = state(OptimizerState::exp_avg);
    content.exp_avg_sq = state(OptimizerState::exp_avg_sq);
    content.state.values["step"] = 5;
    content.side_files.config = "{}";
    CheckpointSaver(world).save(path, engine.runtime().compute(), content);
    world.barrier();
  }
  void restore(SmallEngine& engine, const std::filesystem::path& path) {
    engine->initialize_random(99);  // nothing of it may remain
    const CheckpointReader reader(path, world);
    const auto load = [&](CheckpointGroup from, OptimizerState state) {
      return PartsToLoad{reader.tensors(from), engine->optimizer_parts(state, Copies::all)};
    };
    const std::array loads{load(CheckpointGroup::master, OptimizerState::master),
                           load(CheckpointGroup::exp_avg, OptimizerState::exp_avg),
                           load(CheckpointGroup::exp_avg_sq, OptimizerState::exp_avg_sq)};
    load_parts(world, engine.runtime().compute(), loads);
    engine->masters_changed();
  }

  HostGroup world;
  std::filesystem::path folder;

 private:
  std::optional<testing::TemporaryDirectory> directory_;
};

TEST_F(Resume, SameLayoutRepeatsEveryBit) {
  const ModelConfig config = testing::small_config("qwen3");
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (int tensor : testing::tensor_sizes(world.size())) {
      SCOPED_TRACE(fmt::format("tensor {}, {}", tensor, name(dtype)));
      const SmallLayout layout{.tensor = tensor, .micro_batch = 2, .dtype = dtype};
      const auto path = folder / fmt::format("same_{}_{}.h5", tensor, name(dtype));
      SmallEngine straight(world, config, layout, kLength);
      for (std::int64_t i = 1; i <= 5; ++i) step(straight, i);
      save(straight, path, dtype);
      SmallEngine resumed(world, config, layout, kLength);
      restore(resumed, path);
      EXPECT_EQ(resumed.whole(resumed->weight_parts(DType::f32)),
                straight.whole(straight->weight_parts(DType::f32)));
      for (std::int64_t i = 6; i <= 10; ++i) {
        const StepResult expected = step(straight, i), found = step(resumed, i);
        EXPECT_EQ(found.loss, expected.loss) << "step " << i;
        EXPECT_EQ(found.grad_norm, expected.grad_norm) << "step " << i;
      }
      EXPECT_EQ(resumed.whole(resumed->weight_parts(DType::f32)),
                straight.whole(straight->weight_parts(DType::f32)));
      EXPECT_EQ(resumed.whole(resumed->optimizer_parts(OptimizerState::exp_avg_sq, Copies::all)),
                straight.whole(straight->optimizer_parts(OptimizerState::exp_avg_sq, Copies::all)));
    }
  }
}

TEST_F(Resume, AnotherLayoutFollowsTheSameLosses) {
  if (world.size() == 1) GTEST_SKIP() << "one rank has one layout";
  const ModelConfig config = testing::small_config("llama", 131, 2);
  for (int from : testing::tensor_sizes(world.size())) {
    SmallEngine straight(world, config, {.tensor = from, .micro_batch = 2}, kLength);
    for (std::int64_t i = 1; i <= 5; ++i) step(straight, i);
    const auto path = folder / fmt::format("from_{}.h5", from);
    save(straight, path, DType::f32);
    std::vector<double> expected;
    for (std::int64_t i = 6; i <= 25; ++i) expected.push_back(step(straight, i).loss);
    EXPECT_LT(expected.back(), 0.9 * expected.front()) << "it learns";
    for (int to : testing::tensor_sizes(world.size())) {
      if (to == from) continue;
      SCOPED_TRACE(fmt::format("from tensor {} to tensor {}", from, to));
      SmallEngine resumed(world, config, {.tensor = to, .micro_batch = 2}, kLength);
      restore(resumed, path);
      for (std::int64_t i = 6; i <= 25; ++i) {
        const double reference = expected[static_cast<std::size_t>(i - 6)];
        EXPECT_NEAR(step(resumed, i).loss, reference, 1e-5 * reference) << "step " << i;
      }
    }
  }
}

}  // namespace
}  // namespace verne
