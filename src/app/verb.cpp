#include "verne/app/verb.hpp"

#include <array>

namespace verne {
namespace {

struct Entry {
  Verb verb;
  std::string_view name;
  std::string_view summary;
};
constexpr std::array kEntries = {
    Entry{Verb::prepare, "prepare", "JSONL to tokenized HDF5 shards"},
    Entry{Verb::tokenize, "tokenize", "text to token ids and back, a JSON line each"},
    Entry{Verb::import, "import", "Hugging Face folder to a Verne checkpoint"},
    Entry{Verb::train, "train", "fine-tunes or pre-trains a model"},
    Entry{Verb::score, "score", "log-probabilities of given text or tokens"},
    Entry{Verb::export_, "export", "checkpoint to a Hugging Face folder"},
    Entry{Verb::inspect, "inspect", "shows, verifies and compares checkpoints and shards"},
};
constexpr auto kVerbs = [] {
  std::array<Verb, kEntries.size()> verbs{};
  for (std::size_t i = 0; i < verbs.size(); ++i) verbs[i] = kEntries[i].verb;
  return verbs;
}();

const Entry& entry(Verb verb) {
  return kEntries[static_cast<std::size_t>(verb)];
}

}  // namespace

std::span<const Verb> verbs() {
  return kVerbs;
}
std::string_view name(Verb verb) {
  return entry(verb).name;
}
std::string_view summary(Verb verb) {
  return entry(verb).summary;
}
std::optional<Verb> find_verb(std::string_view name) {
  for (const Entry& each : kEntries) {
    if (each.name == name) return each.verb;
  }
  return std::nullopt;
}

}  // namespace verne
