#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "config_cases.hpp"
#include "testing.hpp"
#include "verne/nn/model_tensors.hpp"

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
  EXPECT_EQ(parameter_count(config), 2 * h * h + 4096 * (7 * h * h + 2 * h) + h);
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

}  // namespace
}  // namespace verne
