#include "verne/nn/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "config_cases.hpp"
#include "testing.hpp"

namespace verne {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using testing::config_of;
using testing::expect_refused;
using testing::Json;
using testing::parse;
using testing::refusal;
using testing::text_refusal;

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
  expect_refused("llama", "model_type", "gpt2", "known are llama, qwen2, qwen3, mistral, nemotron");
  expect_refused("llama", "model_type", 3, "expected a string");
  expect_refused("llama", "architectures", {"Qwen3ForCausalLM"}, "expected 'LlamaForCausalLM'");
  expect_refused("qwen3", "architectures", {"Qwen3MoeForCausalLM"}, "does not go with model_type 'qwen3'");
  expect_refused("llama", "architectures", Json::array());
  expect_refused("llama", "architectures", "LlamaForCausalLM");
  expect_refused("llama", "architectures", {1});
}

TEST(Config, RefusesWhatChangesTheMathematics) {
  for (const char* family : {"llama", "qwen2", "qwen3", "mistral", "nemotron"}) {
    expect_refused(family, "attention_dropout", 0.1, "dropout 0.1 is not supported");
    for (const char* key : {"qkv_bias", "use_qkv_bias", "use_bias", "lm_head_bias"})
      expect_refused(family, key, true, "not supported");
    expect_refused(family, "hidden_act", "gelu", "'gelu' is not supported");
    expect_refused(family, "quantization_config", {{"quant_method", "fp8"}}, "not supported");
    expect_refused(family, "num_local_experts", 8);
    expect_refused(family, "num_experts", 8);
    expect_refused(family, "n_routed_experts", 8);
    expect_refused(family, "final_logit_softcapping", 30.0);
    expect_refused(family, "attn_logit_softcapping", 50.0);
    expect_refused(family, "attention_chunk_size", 8192);
    expect_refused(family, "pretraining_tp", 0);
    expect_refused(family, "pretraining_tp", "1");
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
  json["pretraining_tp"] = 2;
  json["use_cache"] = true;
  json["something_new"] = {{"a", {1, 2}}};
  json["pad_token_id"] = -1;
  EXPECT_EQ(parse(json).layers, 3);
}

TEST(Config, OldSpellingsAreAccepted) {
  Json json = config_of("llama");
  json["architectures"] = {"LLaMAForCausalLM"};
  json["hidden_act"] = "swish";
  EXPECT_EQ(parse(json).family, Family::llama);
  EXPECT_EQ(parse(json).mlp, MlpKind::swiglu);
  expect_refused("qwen3", "architectures", {"LLaMAForCausalLM"}, "does not go with model_type 'qwen3'");
  expect_refused("nemotron", "hidden_act", "swish", "'swish' is not supported");
}

/// {qkv, o, mlp} of a family whose config holds attention_bias and mlp_bias.
std::vector<bool> biases_of(const std::string& family, bool attention, bool mlp) {
  Json json = config_of(family);
  json["attention_bias"] = attention;
  json["mlp_bias"] = mlp;
  const ModelConfig config = parse(json);
  return {config.qkv_bias, config.o_bias, config.mlp_bias};
}

TEST(Config, BiasesOfEveryFamily) {
  for (const char* family : {"llama", "nemotron"}) {
    EXPECT_THAT(biases_of(family, false, false), ElementsAre(false, false, false));
    EXPECT_THAT(biases_of(family, true, false), ElementsAre(true, true, false));
    EXPECT_THAT(biases_of(family, false, true), ElementsAre(false, false, true));
  }
  EXPECT_THAT(biases_of("qwen3", true, false), ElementsAre(true, true, false));
  EXPECT_THAT(biases_of("qwen2", false, false), ElementsAre(true, false, false));
  EXPECT_THAT(biases_of("mistral", false, false), ElementsAre(false, false, false));
  for (const char* family : {"qwen2", "mistral"})
    expect_refused(family, "attention_bias", true, "has no such biases");
  for (const char* family : {"qwen2", "qwen3", "mistral"})
    expect_refused(family, "mlp_bias", true, "has no such biases");
  for (const char* family : {"llama", "qwen2", "qwen3", "mistral", "nemotron"}) {
    Json json = config_of(family);
    EXPECT_EQ(parse(json).qkv_bias, std::string_view(family) == "qwen2") << family;  // where nothing is said
    EXPECT_FALSE(parse(json).o_bias || parse(json).mlp_bias) << family;
    expect_refused(family, "mlp_bias", "true");
  }
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

  for (const char* family : {"qwen2", "qwen3"}) {
    SCOPED_TRACE(family);
    json = config_of(family);
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
  }

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

TEST(Config, BiasesFollowTheirWeights) {
  Json json = config_of("nemotron");
  json["num_hidden_layers"] = 1;
  json["attention_bias"] = json["mlp_bias"] = true;
  std::vector<std::string> names;
  std::map<std::string, std::vector<std::int64_t>> shapes;
  for (const WeightSpec& spec : weight_specs(parse(json))) {
    if (spec.name.find("_proj") == std::string::npos) continue;
    names.push_back(spec.name.substr(std::string("model.layers.0.").size()));
    shapes[names.back()] = spec.shape;
  }
  EXPECT_THAT(names,
              ElementsAre("self_attn.q_proj.weight", "self_attn.q_proj.bias", "self_attn.k_proj.weight",
                          "self_attn.k_proj.bias", "self_attn.v_proj.weight", "self_attn.v_proj.bias",
                          "self_attn.o_proj.weight", "self_attn.o_proj.bias", "mlp.up_proj.weight",
                          "mlp.up_proj.bias", "mlp.down_proj.weight", "mlp.down_proj.bias"));
  EXPECT_THAT(shapes["self_attn.q_proj.bias"], ElementsAre(128));
  EXPECT_THAT(shapes["self_attn.k_proj.bias"], ElementsAre(32));
  EXPECT_THAT(shapes["self_attn.v_proj.bias"], ElementsAre(32));
  EXPECT_THAT(shapes["self_attn.o_proj.bias"], ElementsAre(64));
  EXPECT_THAT(shapes["mlp.up_proj.bias"], ElementsAre(96));
  EXPECT_THAT(shapes["mlp.down_proj.bias"], ElementsAre(64));
  names.clear();
  json = config_of("qwen2");
  json["num_hidden_layers"] = 1;
  for (const WeightSpec& spec : weight_specs(parse(json)))
    if (spec.name.ends_with(".bias")) names.push_back(spec.name);
  const std::string attention = "model.layers.0.self_attn.";
  EXPECT_THAT(names,
              ElementsAre(attention + "q_proj.bias", attention + "k_proj.bias", attention + "v_proj.bias"));
  json["model_type"] = "llama";
  json["architectures"] = {"LlamaForCausalLM"};
  json["mlp_bias"] = true;
  std::int64_t with = parse(json).parameter_count();
  json["mlp_bias"] = false;
  EXPECT_EQ(with - parse(json).parameter_count(), 96 + 96 + 64);
}

TEST(Config, LongValuesAreCutInMessages) {
  Json json = config_of("llama");
  json["vocab_size"] = std::string(100'000, 'x');
  EXPECT_LT(refusal(json).size(), 400u);
}

/// Published sizes; those of the Nemotron family follow from their shapes.
TEST(Config, ParameterCountsOfTheRecipes) {
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

}  // namespace
}  // namespace verne
