#pragma once
#include <string>

#include "verne/app/settings.hpp"
#include "verne/host/options.hpp"

namespace verne {

/// A deck with every key resolved: defaults, then the recipe, then the deck file, then the command line.
struct ResolvedDeck {
  Deck deck;
  std::string recipe;  ///< "qwen3_0p6b/finetune"; empty: none
};
/// Reads the recipe and the deck file. Throws UserError.
ResolvedDeck resolve_deck(const Invocation& invocation);

/// What a verb needs and what only several keys together show to be wrong, as far as no file and no rank
/// count is needed to know. Throws UserError.
void check_deck(Verb verb, const Deck& deck);

/// A deck that replays the run: every key that the verb reads, resolved.
std::string used_inputs(Verb verb, const ResolvedDeck& resolved);

}  // namespace verne
