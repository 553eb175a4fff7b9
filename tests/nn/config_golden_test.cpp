// The golden folders: what their config.json is read as, and the weights that it promises against the files.
#include <gtest/gtest.h>

#include <map>

#include "testing.hpp"
#include "verne/io/hf_folder.hpp"
#include "verne/nn/model_tensors.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> folders() {
  std::vector<fs::path> all;
  for (const auto& entry : fs::directory_iterator(testing::golden_dir() / "models")) all.push_back(entry);
  if (const auto shared = testing::shared_dir()) {
    for (const char* name :
         {"llama", "qwen3", "mistral", "nemotron", "qwen3_yarn", "llama_linear", "mistral_sliding", "long"})
      all.push_back(*shared / "golden" / name);
  }
  return all;
}

ModelConfig config_in(const fs::path& folder) {
  return parse_model_config(testing::read_text(folder / "config.json"), folder.string());
}

TEST(GoldenConfigs, PromiseTheWeightsOfTheirFiles) {
  ASSERT_GE(folders().size(), 10u);
  for (const fs::path& folder : folders()) {
    std::map<std::string, std::string> promised, found;
    for (const ModelTensor& tensor : model_tensors(config_in(folder)))
      promised[tensor.name] = tensor.shape.text();
    const HfFolder files(folder);
    for (const TensorInfo& tensor : files.tensors()) found[tensor.name] = tensor.shape.text();
    EXPECT_EQ(promised, found) << folder;
  }
}

TEST(GoldenConfigs, SayWhatTheyWereMadeFor) {
  const fs::path own = testing::golden_dir() / "models";
  const ModelConfig qwen2 = config_in(own / "qwen2"), biases = config_in(own / "llama_biases");
  EXPECT_EQ(qwen2.windows, (std::vector<std::int64_t>{0, 5}));
  EXPECT_TRUE(qwen2.qkv_bias && !qwen2.o_bias && !qwen2.mlp_bias && qwen2.tied && !qwen2.qk_norm);
  EXPECT_TRUE(biases.qkv_bias && biases.o_bias && biases.mlp_bias);
  const ModelConfig yarn = config_in(own / "llama_yarn"), linear = config_in(own / "llama_linear");
  EXPECT_EQ(yarn.rope.scaling, RopeConfig::Scaling::yarn);
  EXPECT_EQ(yarn.rope.original_max_position_embeddings, 16);
  EXPECT_EQ(linear.rope.scaling, RopeConfig::Scaling::linear);
  EXPECT_EQ(linear.rope.factor, 2.5);
}

}  // namespace
}  // namespace verne
