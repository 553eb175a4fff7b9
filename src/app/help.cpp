#include "verne/app/help.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "verne/app/option_table.hpp"
#include "verne/host/environment.hpp"

namespace verne {
namespace {

constexpr std::size_t kIndent = 4, kColumns = 100;

// Breaks between words, every line indented.
std::string wrapped(std::string_view text) {
  std::string result, line;
  const auto flush = [&] {
    result += std::string(kIndent, ' ') + line + "\n";
    line.clear();
  };
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (!line.empty() && kIndent + line.size() + 1 + end > kColumns) flush();
    if (!line.empty()) line += ' ';
    line += text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  if (!line.empty()) flush();
  return result;
}

std::string default_of(const Option& option) {
  return option.get(Deck{});
}

std::string meaning_of(const Option& option) {
  return option.unit.empty() ? option.meaning : fmt::format("{} {}", option.unit, option.meaning);
}

std::string option_help(const Option& option) {
  std::string head = fmt::format("  --{} <{}>", option.key(), option.type);
  if (option.type == "choice") head = fmt::format("  --{} <{}>", option.key(), option.allowed);
  if (option.type == "whole number" || option.type == "number") head += " " + option.allowed;
  const std::string standard = default_of(option);
  if (!standard.empty()) head += fmt::format("  [{}]", standard);
  return head + "\n" + wrapped(meaning_of(option));
}

constexpr std::string_view kUsage =
    "verne <verb> [deck.ini] [--recipe NAME[/finetune|/pretrain]] [--section.key=value ...]";

// A '|' would end a cell of a Markdown table.
std::string cell(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '|') result += '\\';
    result += c;
  }
  return result;
}

}  // namespace

std::string version_text() {
  const ProgramFacts facts = program_facts();
  return fmt::format("verne {} ({}, {}, {})\n", facts.version, facts.git_commit, facts.compiler,
                     facts.build_type);
}

std::string program_help() {
  std::string text = fmt::format("Verne fine-tunes large language models.\n\n  {}\n\nVerbs\n", kUsage);
  for (const Verb verb : verbs()) text += fmt::format("  {:<9} {}\n", name(verb), summary(verb));
  text +=
      "\nA deck is an INI file; the command line overrides it, and a recipe lies beneath it.\n"
      "Many ranks: mpirun -n 8 verne ..., or srun --mpi=pmix verne ...\n\n"
      "  verne <verb> --help   every key that the verb reads\n"
      "  verne --version\n\n"
      "Exit codes: 0 done; 2 bad input (do not run it again as it is); 75 stopped in good order with a\n"
      "checkpoint (run it again to continue); 1 anything else.\n";
  return text;
}

std::string verb_help(Verb verb) {
  std::string text =
      fmt::format("verne {}: {}\n\n  verne {} [deck.ini] [--recipe NAME] [--section.key=value ...]\n",
                  name(verb), summary(verb), name(verb));
  std::string_view section;
  for (const Option& option : option_table()) {
    if (!option.read_by(verb)) continue;
    if (section != option.section) {
      text += fmt::format("\n[{}] {}\n", option.section, section_summary(option.section));
      section = option.section;
    }
    text += option_help(option);
  }
  return text + "\nIn brackets: what holds where the key is not given.\n";
}

std::string deck_reference() {
  std::string text = fmt::format(
      "# The deck\n\n"
      "Made from the program's option table by `verne --deck-reference > docs/deck.md`; do not edit.\n\n"
      "```\n{}\n```\n\n"
      "A deck is an INI file: `[section]` lines, `key = value` lines, `#` comments. The command line "
      "overrides the "
      "deck, the deck overrides the recipe. A value in double quotes is taken as it stands, with `\\\"`, "
      "`\\\\`, `\\n` "
      "and `\\t`. Items of a list stand between commas; `\\,` is a comma within one. A switch is `true` or "
      "`false`, and "
      "on the command line `--section.key` alone means `true`. A key may stand in a deck that other verbs "
      "read too. "
      "Unknown keys are errors. Paths are relative to the working directory.\n",
      kUsage);
  std::string_view section;
  for (const Option& option : option_table()) {
    if (section != option.section) {
      text += fmt::format(
          "\n## [{}]\n\n{}\n\n| key | type | allowed | default | unit | read by | meaning |\n"
          "|---|---|---|---|---|---|---|\n",
          option.section, section_summary(option.section));
      section = option.section;
    }
    std::vector<std::string_view> readers;
    for (const Verb verb : option.verbs) readers.push_back(name(verb));
    const bool all = readers.size() == verbs().size();
    const std::string standard = default_of(option);
    text += fmt::format("| `{}` | {} | {} | {} | {} | {} | {} |\n", option.name, option.type,
                        cell(option.allowed), standard.empty() ? "" : fmt::format("`{}`", cell(standard)),
                        option.unit, all ? "every verb" : fmt::format("{}", fmt::join(readers, ", ")),
                        cell(option.meaning));
  }
  return text;
}

}  // namespace verne
