#include <cstddef>
#include <cstdint>
#include <string_view>

#include "verne/app/deck.hpp"
#include "verne/base/error.hpp"

// Any text is a deck or a UserError, and a deck's used_inputs.ini says the same as the deck.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  verne::ResolvedDeck resolved;
  try {
    verne::apply_settings(verne::read_deck_text(text, "deck.ini"), resolved.deck);
  } catch (const verne::UserError&) {
    return 0;
  }
  for (const verne::Verb verb : verne::verbs()) {
    const std::string written = verne::used_inputs(verb, resolved);
    verne::ResolvedDeck again;
    verne::apply_settings(verne::read_deck_text(written, "used_inputs.ini"), again.deck);
    if (verne::used_inputs(verb, again) != written) __builtin_trap();
    try {
      verne::check_deck(verb, resolved.deck);
    } catch (const verne::UserError&) {
    }
  }
  return 0;
}
