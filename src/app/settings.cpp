#include "verne/app/settings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <fstream>
#include <map>
#include <sstream>

#include "verne/app/option_table.hpp"
#include "verne/app/option_value.hpp"
#include "verne/app/unknown_key.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

namespace po = boost::program_options;

constexpr std::size_t kMaxDeckBytes = 1 << 20;
// Boost's reader takes every '#' for a comment; one that belongs to a value passes it as this byte, which a
// deck must not hold.
constexpr char kHash = '\x01';

[[noreturn]] void throw_unknown_key(const std::string& origin, std::string_view key) {
  throw_user_error("{}: unknown key {}. {}", origin, key.substr(0, 200), suggest_key(key));
}

po::options_description known_options() {
  po::options_description known;
  for (const Option& option : option_table())
    known.add_options()(option.key().c_str(), po::value<std::string>());
  return known;
}

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// The line without its comment: '#' at the start or after a space, outside of quotes.
std::string_view without_comment(std::string_view line) {
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (quoted && line[i] == '\\') {
      ++i;
    } else if (line[i] == '"') {
      const std::string_view before = trimmed(line.substr(0, i));
      quoted = !quoted && !before.empty() && before.back() == '=';
    } else if (line[i] == '#' && !quoted && (i == 0 || line[i - 1] == ' ' || line[i - 1] == '\t')) {
      return line.substr(0, i);
    }
  }
  return line;
}

std::string unquoted(const std::string& text, const std::string& origin, const std::string& key) {
  if (text.empty() || text.front() != '"') return text;
  std::string value;
  for (std::size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '"') {
      require_user(i + 1 == text.size(), "{}: {} has text after its closing quote", origin, key);
      return value;
    }
    if (text[i] != '\\' || i + 1 == text.size()) {
      value += text[i];
      continue;
    }
    switch (text[++i]) {
      case 'n':
        value += '\n';
        break;
      case 't':
        value += '\t';
        break;
      case '"':
        value += '"';
        break;
      case '\\':
        value += '\\';
        break;
      default:
        throw_user_error("{}: {} has \\{} in quotes; \\\" \\\\ \\n and \\t are known", origin, key, text[i]);
    }
  }
  throw_user_error("{}: {} has an opening quote and no closing one", origin, key);
}

// One `key = value` line through Boost's reader, as if it stood alone under its section.
Setting read_line(const std::string& section, std::string_view line, const po::options_description& known,
                  const std::string& origin) {
  require_user(line.find('=') != std::string_view::npos,
               "{}: \"{}\" is neither [section] nor key = value nor a # comment", origin,
               line.substr(0, 100));
  std::string text = section.empty() ? std::string() : fmt::format("[{}]\n", section);
  text += line;
  std::replace(text.begin(), text.end(), '#', kHash);
  std::istringstream stream(text);
  po::parsed_options parsed(&known);
  try {
    parsed = po::parse_config_file(stream, known, true);
  } catch (const po::error& error) {
    throw_user_error("{}: \"{}\" cannot be read: {}", origin, line.substr(0, 100), error.what());
  }
  require_user(parsed.options.size() == 1 && !parsed.options[0].value.empty(), "{}: \"{}\" cannot be read",
               origin, line.substr(0, 100));
  std::string key = parsed.options[0].string_key, value = parsed.options[0].value[0];
  std::replace(key.begin(), key.end(), kHash, '#');
  std::replace(value.begin(), value.end(), kHash, '#');
  if (parsed.options[0].unregistered) throw_unknown_key(origin, key);
  require_user(!value.empty(), "{}: {} has no value. Leave the line out to keep the default.", origin, key);
  return {key, unquoted(value, origin, key), origin};
}

void require_unique(const std::vector<Setting>& settings) {
  std::map<std::string_view, const Setting*> seen;
  for (const Setting& setting : settings) {
    const auto [first, fresh] = seen.emplace(setting.key, &setting);
    require_user(fresh, "{}: {} is given twice; it was first given at {}", setting.origin, setting.key,
                 first->second->origin);
  }
}

bool is_flag(std::string_view text) {
  return text.substr(0, 1) == "-" && text.size() > 1;
}

bool spells_switch(std::string_view text) {
  try {
    parse_switch(text);
    return true;
  } catch (const BadValue&) {
    return false;
  }
}

// "--key value" to "--key=value", "--switch" to "--switch=true".
std::string joined(std::span<const std::string> arguments, std::size_t& index) {
  const std::string& argument = arguments[index];
  if (argument.find('=') != std::string::npos) return argument;
  const std::string key = argument.substr(2);
  const Option* option = find_option(key);
  const bool has_next = index + 1 < arguments.size();
  if (option && option->is_switch()) {
    if (!has_next || !spells_switch(arguments[index + 1])) return argument + "=true";
    return argument + "=" + arguments[++index];
  }
  if (!option && key != "recipe") throw_unknown_key("command line", key);
  const bool next_is_value = has_next && arguments[index + 1].substr(0, 2) != "--";
  require_user(next_is_value, "command line: {} has no value. Write {}=VALUE.", argument, argument);
  return argument + "=" + arguments[++index];
}

}  // namespace

std::vector<Setting> read_deck_text(std::string_view text, const std::string& origin) {
  require_user(text.size() <= kMaxDeckBytes, "{}: {} bytes are too many for a deck; is this the right file?",
               origin, text.size());
  if (text.substr(0, 3) == "\xEF\xBB\xBF") text.remove_prefix(3);
  const po::options_description known = known_options();
  std::vector<Setting> settings;
  std::string section;
  for (std::int64_t number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    const std::string_view raw = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const std::string place = fmt::format("{}:{}", origin, number);
    const bool control = std::any_of(raw.begin(), raw.end(), [](char c) {
      return static_cast<unsigned char>(c) < 0x20 && c != '\t' && c != '\r';
    });
    require_user(!control, "{}: holds a control character; is this a deck?", place);
    const std::string_view line = trimmed(without_comment(raw));
    if (line.empty() || line.front() == ';') continue;
    if (line.front() == '[') {
      require_user(line.back() == ']' && line.size() > 2, "{}: \"{}\" should be [section]", place,
                   line.substr(0, 100));
      section = trimmed(line.substr(1, line.size() - 2));
      const bool known_section = !section_summary(section).empty();
      require_user(known_section, "{}: unknown section [{}]. The sections are {}.", place,
                   section.substr(0, 100), [] {
                     std::vector<std::string_view> names;
                     for (const Option& option : option_table()) {
                       if (names.empty() || names.back() != option.section) names.push_back(option.section);
                     }
                     return fmt::format("{}", fmt::join(names, ", "));
                   }());
      continue;
    }
    settings.push_back(read_line(section, line, known, place));
  }
  require_unique(settings);
  return settings;
}

std::vector<Setting> read_deck_file(const std::filesystem::path& file) {
  std::error_code failed;
  require_user(!std::filesystem::is_directory(file, failed), "{} is a folder; the deck is an INI file",
               file.string());
  std::ifstream stream(file, std::ios::binary);
  require_user(stream.good(), "{} cannot be read. The deck is the INI file after the verb.", file.string());
  std::string text(kMaxDeckBytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(stream.gcount()));
  require_user(!stream.bad(), "{} cannot be read", file.string());
  return read_deck_text(text, file.string());
}

Invocation parse_command_line(std::span<const std::string> arguments) {
  Invocation invocation;
  std::vector<std::string> flags;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--help" || argument == "-h") {
      invocation.request = Invocation::Request::help;
    } else if (argument == "--version" || argument == "-V") {
      invocation.request = Invocation::Request::version;
    } else if (argument == "--deck-reference") {
      invocation.request = Invocation::Request::deck_reference;
    } else if (argument.substr(0, 2) == "--") {
      if (invocation.request == Invocation::Request::run) flags.push_back(joined(arguments, i));
    } else if (is_flag(argument)) {
      throw_user_error("command line: unknown flag {}. Keys are written --section.key=value.", argument);
    } else if (!invocation.verb) {
      invocation.verb = find_verb(argument);
      if (!invocation.verb) {
        std::vector<std::string_view> names;
        for (const Verb verb : verbs()) names.push_back(name(verb));
        throw_user_error("unknown verb {}. The nearest is {}; there are {}.", argument,
                         nearest(argument, names), fmt::join(names, ", "));
      }
    } else {
      if (invocation.deck) {
        throw_user_error("command line: {} and {}: there is one deck. Keys are written --section.key=value.",
                         invocation.deck->string(), argument);
      }
      invocation.deck = argument;
    }
  }
  if (invocation.request != Invocation::Request::run) return invocation;
  require_user(invocation.verb.has_value(),
               "verne needs a verb: verne <verb> [deck.ini] [--section.key=value ...]. "
               "verne --help names them.");

  po::options_description known = known_options();
  known.add_options()("recipe", po::value<std::string>());
  const std::string origin = "command line";
  for (const std::string& flag : flags) {
    const std::string key = flag.substr(2, flag.find('=') - 2);
    require_user(flag.back() != '=' || flag.find('=') + 1 != flag.size(), "{}: --{} has no value", origin,
                 key);
    if (!find_option(key) && key != "recipe") throw_unknown_key(origin, key);
  }
  po::parsed_options parsed(&known);
  try {
    namespace style = po::command_line_style;
    parsed = po::command_line_parser(flags)
                 .options(known)
                 .style(style::allow_long | style::long_allow_adjacent)
                 .run();
  } catch (const po::error& error) {
    throw_user_error("{}: {}", origin, error.what());
  }
  for (const auto& option : parsed.options) {
    if (option.string_key == "recipe") {
      require_user(invocation.recipe.empty(), "{}: --recipe is given twice", origin);
      invocation.recipe = option.value[0];
    } else {
      invocation.settings.push_back({option.string_key, option.value[0], origin});
    }
  }
  require_unique(invocation.settings);
  return invocation;
}

void apply_settings(std::span<const Setting> settings, Deck& deck) {
  for (const Setting& setting : settings) {
    const Option* option = find_option(setting.key);
    if (!option) throw_unknown_key(setting.origin, setting.key);
    try {
      option->set(deck, setting.value);
    } catch (const BadValue& bad) {
      throw_user_error("{}: {} = {}: {}", setting.origin, setting.key, setting.value.substr(0, 200),
                       bad.what());
    }
  }
}

}  // namespace verne
