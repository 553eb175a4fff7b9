#include "verne/app/recipes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <utility>

#include "verne/app/unknown_key.hpp"
#include "verne/base/error.hpp"
#include "verne/host/environment.hpp"

namespace verne {
namespace fs = std::filesystem;
namespace {

// Other spellings: NeMo's recipes and classes, and the hub's names once they are in lower case with
// underscores.
constexpr std::pair<std::string_view, std::string_view> kAliases[] = {
    {"qwen3_600m", "qwen3_0p6b"},
    {"qwen3_1_7b", "qwen3_1p7b"},
    {"qwen3_0_6b", "qwen3_0p6b"},
    {"qwen25_500m", "qwen25_0p5b"},
    {"qwen2p5_0p5b", "qwen25_0p5b"},
    {"qwen2p5_1p5b", "qwen25_1p5b"},
    {"qwen2p5_7b", "qwen25_7b"},
    {"llama_3_8b", "llama3_8b"},
    {"meta_llama_3_8b", "llama3_8b"},
    {"llama_3_70b", "llama3_70b"},
    {"meta_llama_3_70b", "llama3_70b"},
    {"llama3_1_8b", "llama31_8b"},
    {"llama3_1_70b", "llama31_70b"},
    {"llama3_1_405b", "llama31_405b"},
    {"llama3p1_8b", "llama31_8b"},
    {"llama3p1_70b", "llama31_70b"},
    {"llama3p1_405b", "llama31_405b"},
    {"llama_3p1_8b", "llama31_8b"},
    {"llama_3p1_70b", "llama31_70b"},
    {"llama_3p1_405b", "llama31_405b"},
    {"llama_31_8b", "llama31_8b"},
    {"llama_31_70b", "llama31_70b"},
    {"llama_31_405b", "llama31_405b"},
    {"llama3_405b", "llama31_405b"},
    {"mistral", "mistral_7b"},
    {"mistral_7b_v0p3", "mistral_7b"},
    {"mistral3_7b", "mistral_7b"},
    {"nemotron_8b", "nemotron3_8b"},
    {"nemotron_3_8b", "nemotron3_8b"},
    {"nemotron_3_8b_base_4k", "nemotron3_8b"},
    {"nemotron_15b", "nemotron4_15b"},
    {"nemotron_4_15b", "nemotron4_15b"},
    {"nemotron_340b", "nemotron4_340b"},
    {"nemotron_4_340b", "nemotron4_340b"},
    {"nemotron_4_340b_base", "nemotron4_340b"},
};

std::vector<std::string> recipe_names(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code failed;
  for (auto entry = fs::directory_iterator(folder, failed); !failed && entry != fs::directory_iterator();
       entry.increment(failed)) {
    if (fs::is_regular_file(entry->path() / "config.json", failed)) names.push_back(entry->path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

std::vector<fs::path> recipe_folders() {
  std::vector<fs::path> folders;
  if (const char* given = std::getenv("VERNE_RECIPES"); given && *given) folders.emplace_back(given);
  std::error_code failed;
  const fs::path program = fs::read_symlink("/proc/self/exe", failed);
  if (!failed) folders.push_back(program.parent_path().parent_path() / "share" / "verne" / "recipes");
  folders.emplace_back(program_facts().source_recipes);
  return folders;
}

std::string canonical_recipe_name(std::string_view name) {
  std::string plain;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const auto digit = [name](std::size_t at) {
      return at < name.size() && std::isdigit(static_cast<unsigned char>(name[at]));
    };
    if (name[i] == '.' && i > 0 && digit(i - 1) && digit(i + 1)) {
      plain += 'p';
    } else if (name[i] == '-' || name[i] == '.' || name[i] == ' ') {
      plain += '_';
    } else {
      plain += static_cast<char>(std::tolower(static_cast<unsigned char>(name[i])));
    }
  }
  for (const auto& [alias, recipe] : kAliases) {
    if (plain == alias) return std::string(recipe);
  }
  return plain;
}

Recipe find_recipe(std::string_view spec, const std::vector<fs::path>& folders) {
  const std::size_t slash = spec.find('/');
  const std::string_view kind = slash == std::string_view::npos ? "finetune" : spec.substr(slash + 1);
  require_user(kind == "finetune" || kind == "pretrain",
               "--recipe {}: what follows the slash is finetune or pretrain", spec);
  std::error_code failed;
  const auto folder = std::find_if(folders.begin(), folders.end(), [&failed](const fs::path& path) {
    return fs::is_directory(path, failed);
  });
  require_user(folder != folders.end(),
               "--recipe {}: there is no recipe folder. Point VERNE_RECIPES at inputs/recipes.", spec);
  const std::string name = canonical_recipe_name(spec.substr(0, slash));
  const std::vector<std::string> names = recipe_names(*folder);
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    require_user(!names.empty(), "--recipe {}: {} holds no recipes", spec, folder->string());
    const std::vector<std::string_view> views(names.begin(), names.end());
    throw_user_error("--recipe {}: there is no such recipe. The nearest is {}; there are {}.", spec,
                     nearest(name, views), fmt::format("{}", fmt::join(names, ", ")));
  }
  const fs::path place = fs::absolute(*folder / name).lexically_normal();
  return {fmt::format("{}/{}", name, kind), place / fmt::format("{}.ini", kind), place / "config.json"};
}

}  // namespace verne
