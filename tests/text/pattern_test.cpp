#include "verne/text/pattern.hpp"

#include <gtest/gtest.h>

#include "verne/base/error.hpp"

namespace verne {
namespace {

using Words = std::vector<std::string>;

Words split(const Pattern& pattern, SplitBehavior behavior, const std::string& text) {
  std::optional<Regex::Matcher> matcher;
  std::vector<MatchedPart> parts;
  find_parts(pattern, matcher, text, parts);
  apply_behavior(behavior, parts);
  Words words;
  for (const MatchedPart& part : parts) words.push_back(text.substr(part.begin, part.end - part.begin));
  return words;
}

Regex regex(const std::string& pattern) {
  return Regex(pattern, "test");
}

// The example of Hugging Face tokenizers' documentation: "the-final--countdown" cut at "-".
TEST(Pattern, SplitBehaviors) {
  const std::string text = "the-final--countdown";
  const Pattern dash = std::string("-");
  EXPECT_EQ(split(dash, SplitBehavior::removed, text), (Words{"the", "final", "countdown"}));
  EXPECT_EQ(split(dash, SplitBehavior::isolated, text), (Words{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(split(dash, SplitBehavior::merged_with_previous, text),
            (Words{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(split(dash, SplitBehavior::merged_with_next, text), (Words{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(split(dash, SplitBehavior::contiguous, text), (Words{"the", "-", "final", "--", "countdown"}));
  EXPECT_EQ(split(dash, SplitBehavior::isolated, ""), Words{});
}

TEST(Pattern, EmptyMatchesCutAndTheSearchGoesOn) {
  EXPECT_EQ(split(regex("(?=b)"), SplitBehavior::isolated, "abab"), (Words{"a", "ba", "b"}));
  EXPECT_EQ(split(regex("x*"), SplitBehavior::removed, "\xC3\xA9xxb"), (Words{"\xC3\xA9", "b"}));
}

TEST(Pattern, ReadsOnigurumasDialect) {
  EXPECT_EQ(split(regex(R"(\w+)"), SplitBehavior::removed, "e\xCC\x81_1-\xC2\xBD"), (Words{"-\xC2\xBD"}));
  EXPECT_EQ(split(regex(R"([^\w])"), SplitBehavior::removed, "a-b"), (Words{"a", "b"}));
  EXPECT_EQ(split(regex(R"(\W)"), SplitBehavior::removed, "a-b"), (Words{"a", "b"}));
  EXPECT_EQ(split(regex(R"(\h+)"), SplitBehavior::isolated, "xBeg"), (Words{"x", "Be", "g"}));
  EXPECT_EQ(split(regex("^b"), SplitBehavior::isolated, "ab\nbc"), (Words{"ab\n", "b", "c"}));
  EXPECT_EQ(split(regex(R"([[:digit:]\]]+)"), SplitBehavior::isolated, "a1]b"), (Words{"a", "1]", "b"}));
  EXPECT_THROW(regex("[a-z&&[^b]]"), UserError);
  EXPECT_THROW(regex("[a[bc]]"), UserError);
  EXPECT_THROW(regex("(a"), UserError);
}

TEST(Pattern, TooMuchWorkIsAnError) {
  const Regex hard = regex("(x+x+)+[yz]");
  Regex::Matcher matcher(hard);
  EXPECT_THROW(matcher.find(std::string(60, 'x'), 0), UserError);
}

TEST(Pattern, Replaces) {
  EXPECT_EQ(replace_matches(std::string("ab"), "xabab", "-"), "x--");
  EXPECT_EQ(replace_matches(regex("[0-9]+"), "a12b3", "#"), "a#b#");
}

}  // namespace
}  // namespace verne
