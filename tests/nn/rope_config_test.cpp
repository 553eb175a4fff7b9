// How config.json's words for the rotary embedding are read; rope_table_test.cpp compares what they mean.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_cases.hpp"
#include "verne/nn/rope_table.hpp"

namespace verne {
namespace {

using testing::config_of;
using testing::expect_refused;
using ::testing::HasSubstr;
using testing::Json;
using testing::parse;
using testing::refusal;

TEST(RopeConfig, Transformers4SpellingsMeanTheSame) {
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

TEST(RopeConfig, ScalingIsReadOrRefused) {
  const auto says = [](const Json& scaling) {
    Json four = config_of("llama");
    four["rope_scaling"] = scaling;
    return refusal(four);
  };
  EXPECT_THAT(says({{"rope_type", "longrope"}, {"factor", 4.0}}),
              HasSubstr("\"rope_scaling.rope_type\": 'longrope' is not supported"));
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
  EXPECT_THAT(says({{"type", "yarn"}}), HasSubstr("\"rope_scaling.factor\": missing"));
  for (const auto& [key, value] : std::map<std::string, Json>{{"factor", -4.0},
                                                              {"beta_fast", 0},
                                                              {"beta_slow", 33},
                                                              {"mscale", -1.0},
                                                              {"mscale_all_dim", "1"},
                                                              {"attention_factor", 0},
                                                              {"truncate", 1},
                                                              {"original_max_position_embeddings", 0}}) {
    Json yarn = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 128}};
    yarn[key] = value;
    EXPECT_THAT(says(yarn), HasSubstr("\"rope_scaling." + (key == "beta_slow" ? "beta_fast" : key) + "\""));
    yarn[key] = nullptr;  // absent
    if (key != "factor") {
      Json json = config_of("llama");
      json["rope_scaling"] = yarn;
      EXPECT_EQ(parse(json).rope.scaling, RopeConfig::Scaling::yarn) << key;
    }
  }
  Json flat = config_of("llama");
  flat["rope_parameters"] = {{"rope_theta", 1.0}, {"rope_type", "yarn"}, {"factor", 4.0}};
  EXPECT_THAT(refusal(flat), HasSubstr("\"rope_parameters.rope_theta\""));
  expect_refused("llama", "rope_theta", 0);
  expect_refused("llama", "rope_theta", -1e4);
  Json by_layer_type = config_of("qwen3");
  by_layer_type["rope_parameters"] = {{"full_attention", {{"rope_theta", 1e6}, {"rope_type", "default"}}}};
  EXPECT_THAT(refusal(by_layer_type), HasSubstr("rope_parameters.full_attention"));
}

TEST(RopeConfig, YarnFillsInWhatIsNotSaid) {
  Json json = config_of("llama");
  json["rope_parameters"] = {
      {"rope_type", "yarn"}, {"rope_theta", 1e5}, {"original_max_position_embeddings", 64}};
  const RopeConfig from_lengths = parse(json).rope;
  EXPECT_EQ(from_lengths.theta, 1e5);
  EXPECT_EQ(from_lengths.factor, 8);  // max_position_embeddings 512
  EXPECT_EQ(from_lengths.original_max_position_embeddings, 64);
  EXPECT_EQ(from_lengths.beta_fast, 32);
  EXPECT_EQ(from_lengths.beta_slow, 1);
  EXPECT_TRUE(from_lengths.truncate);
  EXPECT_DOUBLE_EQ(from_lengths.attention_factor, 1 + 0.1 * std::log(8.0));
  json["rope_parameters"]["factor"] = 0.5;
  EXPECT_EQ(parse(json).rope.attention_factor, 1);
  json["rope_parameters"]["mscale"] = 0;  // as if it were not there
  json["rope_parameters"]["mscale_all_dim"] = 1;
  json["rope_parameters"]["factor"] = 4;
  EXPECT_DOUBLE_EQ(parse(json).rope.attention_factor, 1 + 0.1 * std::log(4.0));
  json["original_max_position_embeddings"] = 32;
  EXPECT_EQ(parse(json).rope.original_max_position_embeddings, 32);
}

}  // namespace
}  // namespace verne
