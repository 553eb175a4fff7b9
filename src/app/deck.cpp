#include "verne/app/deck.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "verne/app/option_table.hpp"
#include "verne/app/recipes.hpp"
#include "verne/base/error.hpp"
#include "verne/train/run_state.hpp"

namespace verne {
namespace {

void need(const std::string& value, std::string_view key, std::string_view what) {
  require_user(!value.empty(), "{} is not given: {}. Write it in the deck or as --{}=...", key, what, key);
}
void need(const std::vector<std::string>& value, std::string_view key, std::string_view what) {
  need(value.empty() ? std::string() : value.front(), key, what);
}

void check_layout(const ParallelSection& parallel) {
  require_user(parallel.expert == 1, "parallel.expert = {}: this version has no experts. Set it to 1.",
               parallel.expert);
}

void check_train(const Deck& deck) {
  need(deck.run.dir, "run.dir", "the directory for the run's checkpoints, metrics and logs");
  need(deck.data.train, "data.train", "what to train on");
  if (deck.model.init == Init::pretrained) {
    need(deck.model.path, "model.path", "the model to start from (or model.init = random)");
  } else {
    require_user(!deck.model.config.empty() || !deck.model.path.empty(),
                 "model.init = random needs model.config, the config.json that gives the shape");
  }
  require_user(deck.train.global_batch % deck.train.micro_batch == 0,
               "train.global_batch = {} is not a multiple of train.micro_batch = {}", deck.train.global_batch,
               deck.train.micro_batch);
  require_user(deck.optimizer.min_lr <= deck.optimizer.lr, "optimizer.min_lr = {} is above optimizer.lr = {}",
               deck.optimizer.min_lr, deck.optimizer.lr);
  require_user(deck.parallel.sequence != Sequence::on || deck.parallel.tensor > 1,
               "parallel.sequence = on shares activations among tensor ranks, but parallel.tensor is 1. Set "
               "it to auto.");
  parse_monitor(deck.checkpoint.monitor);
}

std::string quoted(const std::string& value) {
  const bool plain = !value.empty() && value.front() != '"' && value.front() != ' ' && value.back() != ' ' &&
                     std::none_of(value.begin(), value.end(),
                                  [](char c) { return c == '#' || static_cast<unsigned char>(c) < 0x20; });
  if (plain) return value;
  std::string text = "\"";
  for (const char c : value) {
    switch (c) {
      case '\n':
        text += "\\n";
        break;
      case '\t':
        text += "\\t";
        break;
      case '"':
        text += "\\\"";
        break;
      case '\\':
        text += "\\\\";
        break;
      default:
        text += c;
    }
  }
  return text + "\"";
}

}  // namespace

ResolvedDeck resolve_deck(const Invocation& invocation) {
  ResolvedDeck resolved;
  Recipe recipe;
  if (!invocation.recipe.empty()) {
    recipe = find_recipe(invocation.recipe, recipe_folders());
    resolved.recipe = recipe.name;
    apply_settings(read_deck_file(recipe.deck), resolved.deck);
  }
  if (invocation.deck) apply_settings(read_deck_file(*invocation.deck), resolved.deck);
  apply_settings(invocation.settings, resolved.deck);
  ModelSection& model = resolved.deck.model;
  if (!recipe.config.empty() && model.init == Init::random && model.config.empty())
    model.config = recipe.config;
  TrainSection& train = resolved.deck.train;
  if (train.max_steps == 0 && train.epochs == 0) train.epochs = 1;
  return resolved;
}

void check_deck(Verb verb, const Deck& deck) {
  switch (verb) {
    case Verb::prepare:
      need(deck.prepare.input, "prepare.input", "the JSONL files");
      need(deck.prepare.output, "prepare.output", "the folder for the token shards");
      break;
    case Verb::tokenize:
      need(deck.tokenize.input, "tokenize.input", "the JSONL file");
      need(deck.tokenize.output, "tokenize.output", "the JSONL file to write");
      need(deck.tokenize.tokenizer, "tokenize.tokenizer", "a model folder or a tokenizer.json");
      break;
    case Verb::import:
      need(deck.import_.input, "import.input", "the Hugging Face folder");
      need(deck.import_.output, "import.output", "the checkpoint to write");
      break;
    case Verb::train:
      check_layout(deck.parallel);
      check_train(deck);
      break;
    case Verb::score:
      check_layout(deck.parallel);
      need(deck.model.path, "model.path", "the model to score with");
      need(deck.score.input, "score.input", "the JSONL files");
      need(deck.score.output, "score.output", "the JSONL file to write");
      break;
    case Verb::export_:
      need(deck.export_.checkpoint, "export.checkpoint", "a checkpoint or a run directory");
      need(deck.export_.output, "export.output", "the folder to write");
      require_user(
          deck.export_.format == ExportFormat::hf,
          "export.format = peft: this version trains all weights and has no adapters. Set it to hf.");
      break;
    case Verb::inspect:
      need(deck.inspect.input, "inspect.input",
           "a checkpoint, a run, a token shard or a Hugging Face folder");
      break;
  }
}

std::string used_inputs(Verb verb, const ResolvedDeck& resolved) {
  std::string text = fmt::format("# Replays this run: verne {} used_inputs.ini\n", name(verb));
  if (!resolved.recipe.empty())
    text += fmt::format("# Made with --recipe {}; its keys are all here.\n", resolved.recipe);
  std::string_view section;
  for (const Option& option : option_table()) {
    if (!option.read_by(verb)) continue;
    const std::string value = option.get(resolved.deck);
    if (value.empty()) continue;
    if (section != option.section) text += fmt::format("\n[{}]\n", option.section);
    section = option.section;
    text += fmt::format("{} = {}\n", option.name, quoted(value));
  }
  return text;
}

}  // namespace verne
