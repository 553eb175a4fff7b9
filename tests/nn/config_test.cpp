#include "verne/nn/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "testing.hpp"
#include "verne/base/error.hpp"
#include "verne/nn/attention.hpp"

namespace verne {
namespace {

using Json = nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A small config of a family, as transformers 5 writes it.
Json config_of(const std::string& family) {
  static const std::map<std::string, std::string> architectures = {{"llama", "LlamaForCausalLM"},
                                                                   {"qwen3", "Qwen3ForCausalLM"},
                                                                   {"mistral", "MistralForCausalLM"},
                                                                   {"nemotron", "NemotronForCausalLM"}};
  Json config = {{"model_type", family},
                 {"architectures", {architectures.at(family)}},
                 {"vocab_size", 131},
                 {"hidden_size", 64},
                 {"intermediate_size", 96},
                 {"num_hidden_layers", 3},
                 {"num_attention_heads", 8},
                 {"num_key_value_heads", 2},
                 {"head_dim", 16},
                 {"max_position_embeddings", 512},
                 {"hidden_act", family == "nemotron" ? "relu2" : "silu"},
                 {"tie_word_embeddings", false},
                 {"rope_parameters", {{"rope_theta", 5e5}, {"rope_type", "default"}}},
                 {"dtype", "bfloat16"}};
  config[family == "nemotron" ? "norm_eps" : "rms_norm_eps"] = 3e-5;
  return config;
}

ModelConfig parse(const Json& config) {
  return parse_model_config(config.dump(), "folder/config.json");
}

/// The message with which a config is refused; it always names the file.
std::string text_refusal(const std::string& text) {
  try {
    parse_model_config(text, "folder/config.json");
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("folder/config.json"));
    return error.what();
  }
  ADD_FAILURE() << "accepted: " << text;
  return "";
}
std::string refusal(const Json& config) {
  return text_refusal(config.dump());
}

/// The message where `key` is set to `value`; it must name the key.
void expect_refused(const std::string& family, const std::string& key, const Json& value,
                    const std::string& says = "") {
  SCOPED_TRACE(family + " " + key + " = " + value.dump());
  Json config = config_of(family);
  config[key] = value;
  EXPECT_THAT(refusal(config), AllOf(HasSubstr("\"" + key + "\""), HasSubstr(says)));
}

TEST(Config, ReadsWhatTransformers5Writes) {
  Json json = config_of("llama");
  json["rope_parameters"] = {{"rope_theta", 2e5},       {"rope_type", "llama3"},
                             {"factor", 8.0},           {"low_freq_factor", 1.0},
                             {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 128}};
  json["bos_token_id"] = 1;
  json["eos_token_id"] = {7, 5};
  json["initializer_range"] = 0.01;
  const ModelConfig config = parse(json);
  EXPECT_EQ(config.family, Family::llama);
  EXPECT_EQ(name(config.family), "llama");
  EXPECT_EQ(config.vocab_size, 131);
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_EQ(config.intermediate_size, 96);
  EXPECT_EQ(config.layers, 3);
  EXPECT_EQ(config.heads, 8);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.max_positions, 512);
  EXPECT_EQ(config.norm_eps, 3e-5);
  EXPECT_EQ(config.rope.theta, 2e5);
  EXPECT_EQ(config.rope.scaling, RopeConfig::Scaling::llama3);
  EXPECT_EQ(config.rope.factor, 8);
  EXPECT_EQ(config.rope.low_freq_factor, 1);
  EXPECT_EQ(config.rope.high_freq_factor, 4);
  EXPECT_EQ(config.rope.original_max_position_embeddings, 128);
  EXPECT_EQ(config.rope.rotary_dim, 16);
  EXPECT_EQ(config.initializer_range, 0.01);
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(7, 5));
  EXPECT_EQ(config.stored_dtype, "bfloat16");
  EXPECT_FALSE(config.tied);
  EXPECT_FALSE(config.qk_norm);
}

TEST(Config, Transformers4SpellingsMeanTheSame) {
  Json four = config_of("llama"), five = config_of("llama");
  five["rope_parameters"] = {{"rope_theta", 2e5},       {"rope_type", "llama3"},
                             {"factor", 8.0},           {"low_freq_factor", 1.0},
                             {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 128}};
  four.erase("rope_parameters");
  four.erase("dtype");
  four["torch_dtype"] = "bfloat16";
  four["rope_theta"] = 2e5;
  for (const char* type_key : {"rope_type", "type"}) {
    four["rope_scaling"] = five["rope_parameters"];
    four["rope_scaling"].erase("rope_theta");
    four["rope_scaling"].erase("rope_type");
    four["rope_scaling"][type_key] = "llama3";
    const ModelConfig a = parse(four), b = parse(five);
    EXPECT_EQ(a.rope.theta, b.rope.theta);
    EXPECT_EQ(a.rope.scaling, b.rope.scaling);
    EXPECT_EQ(rope_table_values(a.rope, 40), rope_table_values(b.rope, 40));
    EXPECT_EQ(a.stored_dtype, b.stored_dtype);
  }
  four["rope_scaling"] = {{"type", "linear"}, {"factor", 4.0}};
  EXPECT_EQ(parse(four).rope.scaling, RopeConfig::Scaling::linear);
  EXPECT_EQ(parse(four).rope.factor, 4);
  four["rope_scaling"] = nullptr;
  EXPECT_EQ(parse(four).rope.scaling, RopeConfig::Scaling::none);
  EXPECT_EQ(parse(four).rope.theta, 2e5);
}

TEST(Config, NullMeansAbsent) {
  Json json = config_of("qwen3");
  for (const char* key : {"head_dim",
                          "num_key_value_heads",
                          "rope_scaling",
                          "rope_parameters",
                          "sliding_window",
                          "layer_types",
                          "quantization_config",
                          "attention_dropout",
                          "attention_bias",
                          "bos_token_id",
                          "eos_token_id",
                          "tie_word_embeddings",
                          "rms_norm_eps",
                          "max_position_embeddings",
                          "hidden_act",
                          "dtype",
                          "use_sliding_window",
                          "max_window_layers",
                          "initializer_range",
                          "pretraining_tp",
                          "num_experts"})
    json[key] = nullptr;
  const ModelConfig config = parse(json);
  EXPECT_EQ(config.head_dim, 8);  // hidden_size / num_attention_heads
  EXPECT_EQ(config.kv_heads, 8);
  EXPECT_EQ(config.rope.theta, 1e4);
  EXPECT_EQ(config.norm_eps, 1e-6);
  EXPECT_EQ(config.max_positions, 2048);
  EXPECT_EQ(config.initializer_range, 0.02);
  EXPECT_EQ(config.bos_token_id, std::nullopt);
  EXPECT_TRUE(config.eos_token_ids.empty());
  EXPECT_EQ(config.stored_dtype, "");
  EXPECT_THAT(config.windows, ElementsAre(0, 0, 0));
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "model_type", "architectures"})
    expect_refused("llama", key, nullptr);
}

TEST(Config, FamiliesDiffer) {
  const ModelConfig qwen3 = parse(config_of("qwen3")), nemotron = parse(config_of("nemotron"));
  EXPECT_TRUE(qwen3.qk_norm);
  EXPECT_EQ(qwen3.norm, NormKind::rms);
  EXPECT_EQ(qwen3.mlp, MlpKind::swiglu);
  EXPECT_FALSE(nemotron.qk_norm);
  EXPECT_EQ(nemotron.norm, NormKind::layer_norm_1p);
  EXPECT_EQ(nemotron.mlp, MlpKind::squared_relu);
  EXPECT_EQ(nemotron.rope.rotary_dim, 8);  // half of a head where nothing is said
  for (const char* key : {"partial_rotary_factor", "rope_percentage", "rope_percent"}) {
    Json json = config_of("nemotron");
    json[key] = 0.25;
    EXPECT_EQ(parse(json).rope.rotary_dim, 4) << key;
  }
  Json nested = config_of("nemotron");
  nested["rope_parameters"]["partial_rotary_factor"] = 1.0;
  EXPECT_EQ(parse(nested).rope.rotary_dim, 16);
}

TEST(Config, ArchitectureMustBeKnownAndAgree) {
  expect_refused("llama", "model_type", "gpt2", "known are llama, qwen3, mistral, nemotron");
  expect_refused("llama", "model_type", 3, "expected a string");
  expect_refused("llama", "architectures", {"Qwen3ForCausalLM"}, "expected 'LlamaForCausalLM'");
  expect_refused("qwen3", "architectures", {"Qwen3MoeForCausalLM"}, "does not go with model_type 'qwen3'");
  expect_refused("llama", "architectures", Json::array());
  expect_refused("llama", "architectures", "LlamaForCausalLM");
  expect_refused("llama", "architectures", {1});
}

TEST(Config, RefusesWhatChangesTheMathematics) {
  for (const char* family : {"llama", "qwen3", "mistral", "nemotron"}) {
    expect_refused(family, "attention_dropout", 0.1, "dropout 0.1 is not supported");
    expect_refused(family, "attention_bias", true, "not supported");
    expect_refused(family, "mlp_bias", true, "not supported");
    expect_refused(family, "hidden_act", "gelu", "'gelu' is not supported");
    expect_refused(family, "quantization_config", {{"quant_method", "fp8"}}, "not supported");
    expect_refused(family, "num_local_experts", 8);
    expect_refused(family, "num_experts", 8);
    expect_refused(family, "n_routed_experts", 8);
    expect_refused(family, "final_logit_softcapping", 30.0);
    expect_refused(family, "attn_logit_softcapping", 50.0);
    expect_refused(family, "attention_chunk_size", 8192);
    expect_refused(family, "pretraining_tp", 2);
  }
  expect_refused("llama", "partial_rotary_factor", 0.5, "rotates whole heads");
  expect_refused("nemotron", "partial_rotary_factor", 1.5);
  expect_refused("nemotron", "partial_rotary_factor", 0.06);  // no component
  expect_refused("nemotron", "partial_rotary_factor", 0.2);   // three of sixteen
}

TEST(Config, InertFieldsAreAccepted) {
  Json json = config_of("llama");
  json["attention_dropout"] = 0.0;
  json["attention_bias"] = false;
  json["mlp_bias"] = false;
  json["pretraining_tp"] = 1;
  json["use_cache"] = true;
  json["something_new"] = {{"a", {1, 2}}};
  json["pad_token_id"] = -1;
  EXPECT_EQ(parse(json).layers, 3);
}

TEST(Config, RopeScalingIsReadOrRefused) {
  const auto says = [](const Json& scaling) {
    Json four = config_of("llama");
    four["rope_scaling"] = scaling;
    return refusal(four);
  };
  EXPECT_THAT(says({{"rope_type", "yarn"}, {"factor", 4.0}}),
              HasSubstr("\"rope_scaling.rope_type\": 'yarn' is not supported"));
  EXPECT_THAT(says({{"type", "dynamic"}, {"factor", 4.0}}),
              HasSubstr("\"rope_scaling.type\": 'dynamic' is not supported"));
  EXPECT_THAT(says({{"type", "linear"}}), HasSubstr("\"rope_scaling.factor\": missing"));
  EXPECT_THAT(says({{"type", "linear"}, {"factor", 0}}), HasSubstr("\"rope_scaling.factor\""));
  EXPECT_THAT(says({{"type", "linear"}, {"factor", "8"}}), HasSubstr("\"rope_scaling.factor\""));
  EXPECT_THAT(says({{"type", 3}}), HasSubstr("\"rope_scaling.type\""));
  EXPECT_THAT(says("linear"), HasSubstr("\"rope_scaling\""));
  Json llama3 = {
      {"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}};
  for (const char* key : {"factor", "low_freq_factor", "high_freq_factor"}) {
    Json without = llama3;
    without.erase(key);
    EXPECT_THAT(says(without), HasSubstr("\"rope_scaling." + std::string(key) + "\": missing"));
  }
  llama3["high_freq_factor"] = 1.0;
  EXPECT_THAT(says(llama3), HasSubstr("high_freq_factor"));
  expect_refused("llama", "rope_theta", 0);
  expect_refused("llama", "rope_theta", -1e4);
  Json by_layer_type = config_of("qwen3");
  by_layer_type["rope_parameters"] = {{"full_attention", {{"rope_theta", 1e6}, {"rope_type", "default"}}}};
  EXPECT_THAT(refusal(by_layer_type), HasSubstr("rope_parameters.full_attention"));
}

TEST(Config, WindowsOfEveryFamily) {
  Json json = config_of("mistral");
  json["sliding_window"] = 16;
  EXPECT_THAT(parse(json).windows, ElementsAre(16, 16, 16));
  json["layer_types"] = {"full_attention", "sliding_attention", "full_attention"};
  EXPECT_THAT(parse(json).windows, ElementsAre(0, 16, 0));
  json["sliding_window"] = nullptr;
  EXPECT_THAT(refusal(json), HasSubstr("\"layer_types\""));
  json["layer_types"] = nullptr;
  EXPECT_THAT(parse(json).windows, ElementsAre(0, 0, 0));

  json = config_of("qwen3");
  json["sliding_window"] = 16;
  json["max_window_layers"] = 1;
  EXPECT_THAT(parse(json).windows, ElementsAre(0, 0, 0));  // use_sliding_window is off
  json["use_sliding_window"] = true;
  EXPECT_THAT(parse(json).windows, ElementsAre(0, 16, 16));
  json["max_window_layers"] = 0;
  EXPECT_THAT(parse(json).windows, ElementsAre(16, 16, 16));
  json["max_window_layers"] = 3;
  EXPECT_THAT(parse(json).windows, ElementsAre(0, 0, 0));
  json["max_window_layers"] = nullptr;  // 28 by default
  EXPECT_THAT(parse(json).windows, ElementsAre(0, 0, 0));
  json["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention"};
  EXPECT_THAT(parse(json).windows, ElementsAre(16, 0, 16));
  json["use_sliding_window"] = false;
  EXPECT_THAT(refusal(json), HasSubstr("\"layer_types\""));
  json["layer_types"] = {"full_attention", "full_attention", "full_attention"};
  EXPECT_THAT(parse(json).windows, ElementsAre(0, 0, 0));
  json["layer_types"] = {"full_attention", "full_attention"};
  EXPECT_THAT(refusal(json), HasSubstr("expected a list of 3 entries"));
  json["layer_types"] = {"full_attention", "linear_attention", "full_attention"};
  EXPECT_THAT(refusal(json), HasSubstr("entry 1 is \"linear_attention\""));
  json["layer_types"] = "full_attention";
  EXPECT_THAT(refusal(json), HasSubstr("\"layer_types\""));

  for (const char* family : {"llama", "nemotron"}) {
    json = config_of(family);
    json["sliding_window"] = 16;  // these families have none: transformers ignores the key
    EXPECT_THAT(parse(json).windows, ElementsAre(0, 0, 0));
  }
  expect_refused("mistral", "sliding_window", 0);
  expect_refused("mistral", "sliding_window", -16);
  expect_refused("mistral", "sliding_window", true);
  expect_refused("qwen3", "max_window_layers", -1);
  expect_refused("qwen3", "use_sliding_window", 1);
}

TEST(Config, NumbersMustBeInRangeAndOfTheirType) {
  for (const char* key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "max_position_embeddings"}) {
    for (const Json& value :
         {Json(0), Json(-1), Json(2.0), Json("64"), Json(true), Json::array({64}), Json::object(),
          Json(std::int64_t{1} << 40), Json(UINT64_MAX), Json(INT64_MAX), Json(INT64_MIN), Json(1e300)})
      expect_refused("llama", key, value);
  }
  for (const Json& value : {Json(0), Json(-1e-5), Json("1e-5"), Json(true)})
    expect_refused("llama", "rms_norm_eps", value);
  expect_refused("nemotron", "norm_eps", 0);
  expect_refused("llama", "initializer_range", -0.02);
  expect_refused("llama", "tie_word_embeddings", 1);
  expect_refused("llama", "attention_bias", "false");
  expect_refused("llama", "attention_dropout", "0");
  expect_refused("llama", "hidden_act", 1);
  expect_refused("llama", "dtype", 16);
  expect_refused("llama", "eos_token_id", "2");
  expect_refused("llama", "eos_token_id", {1, "2"});
  expect_refused("llama", "eos_token_id", {1, 2.5});
  expect_refused("llama", "eos_token_id", -2);
  expect_refused("llama", "eos_token_id", UINT64_MAX);
  expect_refused("llama", "bos_token_id", "1");
  expect_refused("llama", "bos_token_id", -1);
  expect_refused("llama", "num_key_value_heads", 3, "does not divide num_attention_heads 8");
  Json json = config_of("llama");
  json.erase("head_dim");
  json["hidden_size"] = 63;
  EXPECT_THAT(refusal(json), HasSubstr("\"num_attention_heads\""));
}

TEST(Config, NoExtentMakesACountOverflow) {
  Json json = config_of("llama");
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_attention_heads",
                          "num_key_value_heads", "head_dim"})
    json[key] = std::int64_t{1} << 24;
  json["num_hidden_layers"] = 4096;
  EXPECT_THAT(refusal(json), HasSubstr("head_dim"));  // heads · head_dim
  json["num_attention_heads"] = json["num_key_value_heads"] = 1;
  const ModelConfig config = parse(json);
  constexpr std::int64_t h = std::int64_t{1} << 24;
  EXPECT_EQ(config.parameter_count(), 2 * h * h + 4096 * (7 * h * h + 2 * h) + h);
}

TEST(Config, BrokenTextIsRefused) {
  EXPECT_THAT(text_refusal(std::string()), HasSubstr("not valid JSON"));
  EXPECT_THAT(text_refusal("{\"model_type\": "), HasSubstr("not valid JSON"));
  EXPECT_THAT(text_refusal("[1]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(text_refusal("null"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(text_refusal("{\"model_type\": \"\xff\"}"), HasSubstr("not valid JSON"));
  std::string text = config_of("llama").dump();
  text.pop_back();
  EXPECT_THAT(text_refusal(text + ", \"rope_theta\": 1e999}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(text_refusal(std::string(100'000, '[')), HasSubstr("64 levels"));
  EXPECT_THAT(text_refusal(text + ", \"x\": " + std::string(70, '[') + std::string(70, ']') + "}"),
              HasSubstr("64 levels"));
  EXPECT_EQ(
      parse_model_config(text + ", \"x\": " + std::string(50, '[') + std::string(50, ']') + "}", "").layers,
      3);
}

TEST(Config, WeightsInTransformersOrder) {
  Json json = config_of("qwen3");
  json["num_hidden_layers"] = 1;
  std::vector<std::string> names;
  std::map<std::string, std::vector<std::int64_t>> shapes;
  for (const WeightSpec& spec : weight_specs(parse(json))) {
    names.push_back(spec.name);
    shapes[spec.name] = spec.shape;
  }
  const std::string layer = "model.layers.0.";
  EXPECT_THAT(names, ElementsAre("model.embed_tokens.weight", layer + "self_attn.q_proj.weight",
                                 layer + "self_attn.k_proj.weight", layer + "self_attn.v_proj.weight",
                                 layer + "self_attn.o_proj.weight", layer + "self_attn.q_norm.weight",
                                 layer + "self_attn.k_norm.weight", layer + "mlp.gate_proj.weight",
                                 layer + "mlp.up_proj.weight", layer + "mlp.down_proj.weight",
                                 layer + "input_layernorm.weight", layer + "post_attention_layernorm.weight",
                                 "model.norm.weight", "lm_head.weight"));
  EXPECT_THAT(shapes["model.embed_tokens.weight"], ElementsAre(131, 64));
  EXPECT_THAT(shapes[layer + "self_attn.q_proj.weight"], ElementsAre(128, 64));
  EXPECT_THAT(shapes[layer + "self_attn.v_proj.weight"], ElementsAre(32, 64));
  EXPECT_THAT(shapes[layer + "self_attn.o_proj.weight"], ElementsAre(64, 128));
  EXPECT_THAT(shapes[layer + "self_attn.k_norm.weight"], ElementsAre(16));
  EXPECT_THAT(shapes[layer + "mlp.up_proj.weight"], ElementsAre(96, 64));
  EXPECT_THAT(shapes[layer + "mlp.down_proj.weight"], ElementsAre(64, 96));
  const std::int64_t untied = parse(json).parameter_count();
  json["tie_word_embeddings"] = true;
  EXPECT_EQ(parse(json).parameter_count(), untied - 131 * 64);
  EXPECT_EQ(weight_specs(parse(json)).back().name, "model.norm.weight");
}

/// Published sizes; those of the Nemotron family follow from their shapes.
TEST(Config, ParameterCountsOfTheRecipes) {
  const std::map<std::string, std::int64_t> expected = {
      {"qwen3_0p6b", 596'049'920},        {"qwen3_1p7b", 1'720'574'976},
      {"qwen3_4b", 4'022'468'096},        {"qwen3_8b", 8'190'735'360},
      {"qwen3_14b", 14'768'307'200},      {"qwen3_32b", 32'762'123'264},
      {"llama3_8b", 8'030'261'248},       {"llama3_70b", 70'553'706'496},
      {"llama31_8b", 8'030'261'248},      {"llama31_70b", 70'553'706'496},
      {"llama31_405b", 405'853'388'800},  {"mistral_7b", 7'248'023'552},
      {"nemotron3_8b", 8'540'135'424},    {"nemotron4_15b", 15'628'775'424},
      {"nemotron4_340b", 341'029'195'776}};
  const auto folder = testing::golden_dir().parent_path().parent_path() / "inputs" / "recipes";
  for (const auto& [recipe, count] : expected) {
    const auto file = folder / recipe / "config.json";
    EXPECT_EQ(parse_model_config(testing::read_text(file), file.string()).parameter_count(), count) << recipe;
  }
}

TEST(Config, FlopsOfAToken) {
  Json json = config_of("qwen3");
  const ModelConfig untied = parse(json);
  // Every weight but the embedding multiplies once forward and twice backward; q·kᵀ and p·v over half of the
  // sequence.
  const double attention = 3 * 2.0 * 3 * 8 * 16 * 100;
  EXPECT_DOUBLE_EQ(untied.training_flops_per_token(100),
                   6.0 * static_cast<double>(untied.parameter_count() - 131 * 64) + attention);
  json["tie_word_embeddings"] = true;
  EXPECT_DOUBLE_EQ(parse(json).training_flops_per_token(100), untied.training_flops_per_token(100));
}

/// Frequency j from a table: the angle at position 1.
double frequency(const std::vector<float>& table, std::int64_t positions, std::int64_t half, std::int64_t j) {
  const auto at = [&](std::int64_t row) {
    return static_cast<double>(table[static_cast<std::size_t>(row * half + j)]);
  };
  return std::atan2(at(positions + 1), at(1));
}

TEST(RopeTable, HoldsCosinesThenSines) {
  const RopeConfig rope{.theta = 1e4, .rotary_dim = 8};
  const std::int64_t positions = 300;
  const auto table = rope_table_values(rope, positions);
  ASSERT_EQ(table.size(), 2u * 300u * 4u);
  for (std::int64_t p = 0; p < positions; ++p) {
    for (std::int64_t j = 0; j < 4; ++j) {
      const double angle = static_cast<double>(p) * std::pow(1e4, -2.0 * static_cast<double>(j) / 8);
      EXPECT_NEAR(table[static_cast<std::size_t>(p * 4 + j)], std::cos(angle), 4e-5) << p << " " << j;
      EXPECT_NEAR(table[static_cast<std::size_t>((positions + p) * 4 + j)], std::sin(angle), 4e-5);
    }
  }
}

TEST(RopeTable, LinearScalingStretchesPositions) {
  const RopeConfig rope{.theta = 1e4, .rotary_dim = 8, .scaling = RopeConfig::Scaling::linear, .factor = 4};
  const auto table = rope_table_values(rope, 2);
  for (std::int64_t j = 0; j < 4; ++j)
    EXPECT_NEAR(frequency(table, 2, 4, j), std::pow(1e4, -static_cast<double>(j) / 4) / 4, 1e-7);
}

/// Llama 3.1: of 64 frequencies the first 29 are kept, the last 29 divided by 8, the six between blended.
TEST(RopeTable, Llama3Scaling) {
  const RopeConfig rope{.theta = 5e5,
                        .rotary_dim = 128,
                        .scaling = RopeConfig::Scaling::llama3,
                        .factor = 8,
                        .low_freq_factor = 1,
                        .high_freq_factor = 4,
                        .original_max_position_embeddings = 8192};
  const auto table = rope_table_values(rope, 2);
  for (std::int64_t j = 0; j < 64; ++j) {
    const double plain = std::pow(5e5, -static_cast<double>(j) / 64), found = frequency(table, 2, 64, j);
    const double wavelength = 2 * M_PI / plain;
    double expected = plain;
    if (j >= 35) expected = plain / 8;
    if (j > 28 && j < 35) {
      const double share = (8192 / wavelength - 1) / 3;
      expected = (1 - share) * plain / 8 + share * plain;
      EXPECT_LT(found, plain * 0.999);
      EXPECT_GT(found, plain / 8 * 1.001);
    }
    EXPECT_NEAR(found, expected, 2e-6 * expected) << j;
  }
}

}  // namespace
}  // namespace verne
