#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "verne/base/error.hpp"
#include "verne/nn/config.hpp"

/// Configs and how they are refused, for the tests of everything that reads config.json.
namespace verne::testing {

using Json = nlohmann::json;

/// A small config of a family, as transformers 5 writes it.
inline Json config_of(const std::string& family) {
  static const std::map<std::string, std::string> architectures = {{"llama", "LlamaForCausalLM"},
                                                                   {"qwen2", "Qwen2ForCausalLM"},
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

inline ModelConfig parse(const Json& config) {
  return parse_model_config(config.dump(), "folder/config.json");
}

/// The message with which a config is refused; it always names the file.
inline std::string text_refusal(const std::string& text) {
  try {
    parse_model_config(text, "folder/config.json");
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("folder/config.json"));
    return error.what();
  }
  ADD_FAILURE() << "accepted: " << text;
  return "";
}
inline std::string refusal(const Json& config) {
  return text_refusal(config.dump());
}

/// The message where `key` is set to `value`; it must name the key.
inline void expect_refused(const std::string& family, const std::string& key, const Json& value,
                           const std::string& says = "") {
  SCOPED_TRACE(family + " " + key + " = " + value.dump());
  Json config = config_of(family);
  config[key] = value;
  EXPECT_THAT(refusal(config),
              ::testing::AllOf(::testing::HasSubstr("\"" + key + "\""), ::testing::HasSubstr(says)));
}

}  // namespace verne::testing
