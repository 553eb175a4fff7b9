#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace verne {

/// A folder config.json, finetune.ini, pretrain.ini under a recipe folder, and which of the two decks was
/// asked for.
struct Recipe {
  std::string name;  ///< "qwen3_0p6b/finetune"
  std::filesystem::path deck;
  std::filesystem::path config;
};

/// Where recipes are looked for: the environment variable VERNE_RECIPES, beside the program as installed and
/// as built. The first that exists counts.
std::vector<std::filesystem::path> recipe_folders();

/// NAME, NAME/finetune (the default) or NAME/pretrain; NAME may be another spelling of a recipe's: NeMo's, or
/// the hub's with dashes, dots and capitals. Throws UserError naming the recipes there are.
Recipe find_recipe(std::string_view spec, const std::vector<std::filesystem::path>& folders);

/// The name of the recipe's folder that a spelling stands for: "nemotron_8b" → "nemotron3_8b". Unknown
/// spellings come back in lower case, with underscores.
std::string canonical_recipe_name(std::string_view name);

}  // namespace verne
