#pragma once
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "verne/app/verb.hpp"
#include "verne/host/options.hpp"

namespace verne {

/// A key and its text, and where it stands: "deck.ini:12" or "command line".
struct Setting {
  std::string key;
  std::string value;
  std::string origin;
};

/// Reads a deck: `[section]` lines, `key = value` lines, `#` comments (also after a space at a line's end),
/// empty lines. A value in double quotes is taken as it stands, with \" \\ \n \t. Throws UserError naming
/// `origin` and the line: bad syntax, an unknown key, the same key twice, an empty value. Values are not
/// looked at.
std::vector<Setting> read_deck_text(std::string_view text, const std::string& origin);
/// The same for a file. Throws UserError where it cannot be read.
std::vector<Setting> read_deck_file(const std::filesystem::path& file);

/// What the command line asks for.
struct Invocation {
  enum class Request { run, help, version, deck_reference };
  Request request = Request::run;
  std::optional<Verb> verb;  ///< absent: help of the program, version, deck reference
  std::optional<std::filesystem::path> deck;
  std::string recipe;  ///< empty: none
  std::vector<Setting> settings;
};
/// `arguments` without the program's name. Reads no file. Throws UserError.
Invocation parse_command_line(std::span<const std::string> arguments);

/// Sets each in turn. Throws UserError naming the origin, key, value and what was expected.
void apply_settings(std::span<const Setting> settings, Deck& deck);

}  // namespace verne
