#include "verne/app/help.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "testing.hpp"
#include "verne/app/option_table.hpp"
#include "verne/host/environment.hpp"

namespace verne {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Help, NamesEveryKeyOfAVerb) {
  for (const Verb verb : verbs()) {
    const std::string text = verb_help(verb);
    for (const Option& option : option_table()) {
      const std::string flag = "  --" + option.key() + " <";
      EXPECT_EQ(text.find(flag) != std::string::npos, option.read_by(verb))
          << name(verb) << ' ' << option.key();
    }
  }
  EXPECT_THAT(verb_help(Verb::train), HasSubstr("  --optimizer.lr <number> ≥ 0  [5e-06]\n"));
  EXPECT_THAT(verb_help(Verb::train), HasSubstr("  --data.overlong <error, drop or truncate>  [error]\n"));
  for (const Verb verb : verbs()) EXPECT_THAT(program_help(), HasSubstr(std::string(name(verb))));
  EXPECT_THAT(program_help(), Not(HasSubstr("generate")));
}

TEST(Help, Version) {
  EXPECT_THAT(version_text(), HasSubstr("verne " + program_facts().version + " ("));
}

TEST(Help, DeckReferenceIsUpToDate) {
  const auto file = std::filesystem::path(program_facts().source_recipes) / ".." / ".." / "docs" / "deck.md";
  EXPECT_EQ(testing::read_text(file), deck_reference())
      << "write docs/deck.md again: verne --deck-reference > docs/deck.md";
}

}  // namespace
}  // namespace verne
