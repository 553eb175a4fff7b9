#include "verne/app/recipes.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "testing.hpp"
#include "verne/app/deck.hpp"
#include "verne/base/error.hpp"
#include "verne/host/environment.hpp"
#include "verne/nn/model_tensors.hpp"

namespace verne {
namespace {

using ::testing::HasSubstr;

const std::vector<std::filesystem::path>& folders() {
  static const std::vector<std::filesystem::path> here = {program_facts().source_recipes};
  return here;
}

// Parameters as the models' publishers count them, tied embeddings once.
const std::map<std::string, std::int64_t>& parameter_counts() {
  static const std::map<std::string, std::int64_t> counts = {
      {"qwen25_0p5b", 494'032'768},    {"qwen25_1p5b", 1'543'714'304},    {"qwen25_7b", 7'615'616'512},
      {"qwen3_0p6b", 596'049'920},     {"qwen3_1p7b", 1'720'574'976},     {"qwen3_4b", 4'022'468'096},
      {"qwen3_8b", 8'190'735'360},     {"qwen3_14b", 14'768'307'200},     {"qwen3_32b", 32'762'123'264},
      {"llama3_8b", 8'030'261'248},    {"llama3_70b", 70'553'706'496},    {"llama31_8b", 8'030'261'248},
      {"llama31_70b", 70'553'706'496}, {"llama31_405b", 405'853'388'800}, {"mistral_7b", 7'248'023'552},
      {"nemotron3_8b", 8'540'135'424}, {"nemotron4_15b", 15'628'775'424}, {"nemotron4_340b", 341'029'195'776},
  };
  return counts;
}

TEST(Recipes, ParameterCounts) {
  for (const auto& [name, count] : parameter_counts()) {
    const Recipe recipe = find_recipe(name, folders());
    const ModelConfig config = parse_model_config(testing::read_text(recipe.config), recipe.config);
    EXPECT_EQ(parameter_count(config), count) << name;
  }
}

TEST(Recipes, DecksAreWhole) {
  std::int64_t recipes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folders().front())) {
    const std::string name = entry.path().filename();
    EXPECT_TRUE(parameter_counts().contains(name)) << name;
    ++recipes;
    for (const char* kind : {"finetune", "pretrain"}) {
      const std::vector<std::string> arguments = {"train", "--recipe", name + "/" + kind, "--run.dir=r",
                                                  "--data.train=t.h5"};
      const Deck deck = resolve_deck(parse_command_line(arguments)).deck;
      EXPECT_NO_THROW(check_deck(Verb::train, deck)) << name << kind;
      EXPECT_EQ(deck.optimizer.beta2, std::string(kind) == "finetune" ? 0.98 : 0.95) << name << kind;
      if (std::string(kind) == "finetune") {
        EXPECT_EQ(deck.optimizer.lr, 5e-6) << name;
      }
      EXPECT_EQ(deck.train.global_batch % deck.train.micro_batch, 0);
    }
  }
  EXPECT_EQ(recipes, static_cast<std::int64_t>(parameter_counts().size()));
}

TEST(Recipes, OtherSpellings) {
  const std::pair<const char*, const char*> spellings[] = {{"nemotron_8b", "nemotron3_8b"},
                                                           {"nemotron_4_340b", "nemotron4_340b"},
                                                           {"qwen3_600m", "qwen3_0p6b"},
                                                           {"Qwen3-0.6B", "qwen3_0p6b"},
                                                           {"Qwen3-1.7B", "qwen3_1p7b"},
                                                           {"qwen25_500m", "qwen25_0p5b"},
                                                           {"Qwen2.5-0.5B", "qwen25_0p5b"},
                                                           {"Qwen2.5-1.5B", "qwen25_1p5b"},
                                                           {"Qwen2.5-7B", "qwen25_7b"},
                                                           {"Llama-3.1-405B", "llama31_405b"},
                                                           {"Mistral-7B-v0.3", "mistral_7b"},
                                                           {"llama3_70b", "llama3_70b"},
                                                           {"Nemotron-4-340B-Base", "nemotron4_340b"}};
  for (const auto& [spelling, name] : spellings) {
    EXPECT_EQ(find_recipe(spelling, folders()).name, std::string(name) + "/finetune") << spelling;
  }
  EXPECT_EQ(find_recipe("qwen3_8b/pretrain", folders()).name, "qwen3_8b/pretrain");
}

TEST(Recipes, SaysWhatThereIs) {
  const auto error = [](std::string_view spec,
                        const std::vector<std::filesystem::path>& where) -> std::string {
    try {
      find_recipe(spec, where);
    } catch (const UserError& failure) {
      return failure.what();
    }
    return "no error";
  };
  EXPECT_THAT(error("qwen3_9b", folders()), HasSubstr("The nearest is qwen3_"));
  EXPECT_THAT(error("qwen3_8b/lora", folders()), HasSubstr("finetune or pretrain"));
  EXPECT_THAT(error("../etc", folders()), HasSubstr("finetune or pretrain"));
  EXPECT_THAT(error("..", folders()), HasSubstr("there is no such recipe"));
  EXPECT_THAT(error("qwen3_8b", {"/nowhere"}), HasSubstr("VERNE_RECIPES"));
}

}  // namespace
}  // namespace verne
