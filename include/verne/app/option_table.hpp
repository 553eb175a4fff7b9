#pragma once
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "verne/app/verb.hpp"
#include "verne/host/options.hpp"

namespace verne {

/// A key of the deck. Parsing, help, docs/deck.md and used_inputs.ini all come from these.
struct Option {
  std::string section;
  std::string name;
  std::string type;     ///< "text", "path", "whole number", "number", "switch", "list", "choice"
  std::string allowed;  ///< the choices or the range; empty: anything
  std::string unit;     ///< empty: none
  std::string meaning;
  std::vector<Verb> verbs;  ///< which read it
  /// Sets it from text; throws BadValue.
  std::function<void(Deck&, std::string_view)> set;
  /// The text that `set` takes back; empty where it is not given.
  std::function<std::string(const Deck&)> get;

  std::string key() const { return section + "." + name; }
  bool is_switch() const { return type == "switch"; }
  bool read_by(Verb verb) const;
};

/// All keys, by section in the order in which help shows them.
std::span<const Option> option_table();
/// nullptr where there is no such key.
const Option* find_option(std::string_view key);
/// One line that says what a section is about.
std::string_view section_summary(std::string_view section);

}  // namespace verne
