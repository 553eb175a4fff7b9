// Values that are not finite are found and named, and change nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "small_engine.hpp"
#include "verne/ops/elementwise.hpp"
#include "verne/ops/run.hpp"

namespace verne {
namespace {

using testing::SmallEngine;
using ::testing::StartsWith;

/// Sets element `at` of a weight's local memory, whatever its dtype.
void plant(SmallEngine& engine, const std::string& name, std::int64_t at, float value) {
  for (const TensorPart& part : engine.host().weight_parts(DType::f32, ParameterStore::Share::held)) {
    if (part.name != name) continue;
    const Tensor from(reinterpret_cast<std::byte*>(&value), DType::f32, {1});
    run(engine.runtime().compute(), Cast{.y = part.local.rows(part.runs.at(0).local + at, 1), .x = from});
    return;
  }
  FAIL() << "no weight " << name;
}

std::string first_not_finite(SmallEngine& engine) {
  const HostGroup alone;
  const auto rows = testing::random_rows(4, {7}, 8, engine->host().config().vocab_size);
  return engine->first_not_finite(engine.batch(rows), alone);
}

TEST(NotFinite, NamesTheFirstWeight) {
  const HostGroup alone;
  const ModelConfig config = testing::small_config("qwen3");
  for (DType dtype : {DType::f32, DType::bf16}) {
    SmallEngine engine(alone, config, {.dtype = dtype}, 8);
    EXPECT_EQ(first_not_finite(engine), "");
    plant(engine, "model.norm.weight", 3, std::numeric_limits<float>::infinity());
    EXPECT_EQ(first_not_finite(engine), "the weight of model.norm.weight");
    plant(engine, "model.layers.1.mlp.down_proj.weight", 77, std::numeric_limits<float>::quiet_NaN());
    EXPECT_EQ(first_not_finite(engine), "the weight of model.layers.1.mlp.down_proj.weight");
    plant(engine, "model.layers.0.self_attn.k_proj.weight", 5, -std::numeric_limits<float>::infinity());
    EXPECT_EQ(first_not_finite(engine), "the weight of model.layers.0.self_attn.qkv");
    plant(engine, "model.embed_tokens.weight", 0, std::numeric_limits<float>::quiet_NaN());
    EXPECT_EQ(first_not_finite(engine), "the weight of model.embed_tokens.weight");
  }
}

TEST(NotFinite, LargeWeightsAreFinite) {
  const HostGroup alone;
  SmallEngine engine(alone, testing::small_config("llama"), {}, 8);
  plant(engine, "model.norm.weight", 0, std::numeric_limits<float>::max());
  EXPECT_THAT(first_not_finite(engine), StartsWith("the gradient"));
}

TEST(NotFinite, GradientIsNamedAndNothingIsUpdated) {
  const HostGroup alone;
  const ModelConfig config = testing::small_config("llama");
  SmallEngine engine(alone, config, {}, 8);
  for (std::int64_t i = 0; i < config.hidden_size; ++i) plant(engine, "model.norm.weight", i, 3e38f);
  engine->weights_changed();
  const auto before = engine.weights();
  const auto rows = testing::random_rows(4, {7}, 8, config.vocab_size);
  const StepResult result = engine.step(engine.batch(rows), 1, 1e-2);
  EXPECT_FALSE(std::isfinite(result.grad_norm));
  EXPECT_THAT(first_not_finite(engine), StartsWith("the gradient of model.embed_tokens.weight"));
  EXPECT_EQ(engine.weights(), before);
}

}  // namespace
}  // namespace verne
