#include "verne/nn/model_tensors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "config_cases.hpp"
#include "testing.hpp"

namespace verne::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

TEST(ModelTensors, NamesAndShapesAreThoseOfTransformers) {
  Json json = config_of("qwen3");
  json["num_hidden_layers"] = 1;
  std::vector<std::string> names;
  std::map<std::string, Shape> shapes;
  for (const ModelTensor& spec : model_tensors(parse(json))) {
    names.push_back(spec.name);
    shapes[spec.name] = spec.shape;
  }
  const std::string layer = "model.layers.0.";
  EXPECT_THAT(
      names, UnorderedElementsAre("model.embed_tokens.weight", layer + "self_attn.q_proj.weight",
                                  layer + "self_attn.k_proj.weight", layer + "self_attn.v_proj.weight",
                                  layer + "self_attn.o_proj.weight", layer + "self_attn.q_norm.weight",
                                  layer + "self_attn.k_norm.weight", layer + "mlp.gate_proj.weight",
                                  layer + "mlp.up_proj.weight", layer + "mlp.down_proj.weight",
                                  layer + "input_layernorm.weight", layer + "post_attention_layernorm.weight",
                                  "model.norm.weight", "lm_head.weight"));
  EXPECT_EQ(shapes["model.embed_tokens.weight"], (Shape{131, 64}));
  EXPECT_EQ(shapes[layer + "self_attn.q_proj.weight"], (Shape{128, 64}));
  EXPECT_EQ(shapes[layer + "self_attn.v_proj.weight"], (Shape{32, 64}));
  EXPECT_EQ(shapes[layer + "self_attn.o_proj.weight"], (Shape{64, 128}));
  EXPECT_EQ(shapes[layer + "self_attn.k_norm.weight"], (Shape{16}));
  EXPECT_EQ(shapes[layer + "mlp.up_proj.weight"], (Shape{96, 64}));
  EXPECT_EQ(shapes[layer + "mlp.down_proj.weight"], (Shape{64, 96}));
  const std::int64_t untied = parameter_count(parse(json));
  json["tie_word_embeddings"] = true;
  EXPECT_EQ(parameter_count(parse(json)), untied - 131 * 64);
  EXPECT_EQ(model_tensors(parse(json)).back().name, "model.norm.weight");
}

TEST(ModelTensors, BiasesFollowTheirWeights) {
  Json json = config_of("nemotron");
  json["num_hidden_layers"] = 1;
  json["attention_bias"] = json["mlp_bias"] = true;
  std::vector<std::string> names;
  std::map<std::string, Shape> shapes;
  for (const ModelTensor& spec : model_tensors(parse(json))) {
    if (spec.name.find("_proj") == std::string::npos) continue;
    names.push_back(spec.name.substr(std::string("model.layers.0.").size()));
    shapes[names.back()] = spec.shape;
  }
  EXPECT_THAT(names, UnorderedElementsAre(
                         "self_attn.q_proj.weight", "self_attn.q_proj.bias", "self_attn.k_proj.weight",
                         "self_attn.k_proj.bias", "self_attn.v_proj.weight", "self_attn.v_proj.bias",
                         "self_attn.o_proj.weight", "self_attn.o_proj.bias", "mlp.up_proj.weight",
                         "mlp.up_proj.bias", "mlp.down_proj.weight", "mlp.down_proj.bias"));
  EXPECT_EQ(shapes["self_attn.q_proj.bias"], (Shape{128}));
  EXPECT_EQ(shapes["self_attn.k_proj.bias"], (Shape{32}));
  EXPECT_EQ(shapes["self_attn.v_proj.bias"], (Shape{32}));
  EXPECT_EQ(shapes["self_attn.o_proj.bias"], (Shape{64}));
  EXPECT_EQ(shapes["mlp.up_proj.bias"], (Shape{96}));
  EXPECT_EQ(shapes["mlp.down_proj.bias"], (Shape{64}));
  names.clear();
  json = config_of("qwen2");
  json["num_hidden_layers"] = 1;
  for (const ModelTensor& spec : model_tensors(parse(json)))
    if (spec.name.ends_with(".bias")) names.push_back(spec.name);
  const std::string attention = "model.layers.0.self_attn.";
  EXPECT_THAT(names,
              ElementsAre(attention + "q_proj.bias", attention + "k_proj.bias", attention + "v_proj.bias"));
  json["model_type"] = "llama";
  json["architectures"] = {"LlamaForCausalLM"};
  json["mlp_bias"] = true;
  std::int64_t with = parameter_count(parse(json));
  json["mlp_bias"] = false;
  EXPECT_EQ(with - parameter_count(parse(json)), 96 + 96 + 64);
}

TEST(ModelTensors, LongValuesAreCutInMessages) {
  Json json = config_of("llama");
  json["vocab_size"] = std::string(100'000, 'x');
  EXPECT_LT(refusal(json).size(), 400u);
}

/// Published sizes; those of the Nemotron family follow from their shapes.
TEST(ModelTensors, ParameterCountsOfTheRecipes) {
  const std::map<std::string, std::int64_t> expected = {
      {"qwen3_0p6b", 596'049'920},       {"qwen3_1p7b", 1'720'574'976},
      {"qwen3_4b", 4'022'468'096},       {"qwen3_8b", 8'190'735'360},
      {"qwen3_14b", 14'768'307'200},     {"qwen3_32b", 32'762'123'264},
      {"qwen25_0p5b", 494'032'768},      {"qwen25_1p5b", 1'543'714'304},
      {"qwen25_7b", 7'615'616'512},      {"llama3_8b", 8'030'261'248},
      {"llama3_70b", 70'553'706'496},    {"llama31_8b", 8'030'261'248},
      {"llama31_70b", 70'553'706'496},   {"llama31_405b", 405'853'388'800},
      {"mistral_7b", 7'248'023'552},     {"nemotron3_8b", 8'540'135'424},
      {"nemotron4_15b", 15'628'775'424}, {"nemotron4_340b", 341'029'195'776}};
  const auto folder = testing::golden_dir().parent_path().parent_path() / "inputs" / "recipes";
  for (const auto& [recipe, count] : expected) {
    const auto file = folder / recipe / "config.json";
    EXPECT_EQ(parameter_count(parse_model_config(testing::read_text(file), file.string())), count) << recipe;
  }
}

TEST(TrainingFlops, OfOneDocumentByHand) {
  Json json = config_of("qwen3");
  const ModelConfig untied = parse(json);
  const std::vector<std::int64_t> one = {100};
  // Every weight but the embedding and the gains multiplies once forward and twice backward; q·kᵀ and p·v
  // over the pairs of a query and a key that it sees, in three layers.
  std::int64_t gains = 0;
  for (const ModelTensor& tensor : model_tensors(untied))
    if (tensor.shape.rank() == 1) gains += tensor.shape.count();
  const double attention = 3.0 * 3 * 4 * 8 * 16 * (100 * 101 / 2);
  const double expected = 600.0 * static_cast<double>(parameter_count(untied) - 131 * 64 - gains) + attention;
  EXPECT_DOUBLE_EQ(TrainingFlops(untied)(one), expected);
  json["tie_word_embeddings"] = true;
  EXPECT_DOUBLE_EQ(TrainingFlops(parse(json))(one), expected);
}

/// Documents do not see each other, whatever row they are packed into; a window hides keys.
TEST(TrainingFlops, AttentionOfEachDocumentAtItsOwnLength) {
  ModelConfig config = parse(config_of("qwen3"));
  const TrainingFlops flops(config);
  const std::vector<std::int64_t> apart = {10, 20, 70}, together = {100};
  EXPECT_DOUBLE_EQ(flops(together) - flops(apart),
                   3.0 * 3 * 4 * 8 * 16 * (100 * 101 - 10 * 11 - 20 * 21 - 70 * 71) / 2);
  config.windows = {0, 0, 5};
  EXPECT_DOUBLE_EQ(flops(together) - TrainingFlops(config)(together),
                   3.0 * 4 * 8 * 16 * (100 * 101 / 2 - (5 * 6 / 2 + 95 * 5)));
}

}  // namespace
}  // namespace verne::testing
