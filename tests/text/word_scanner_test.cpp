#include "verne/text/word_scanner.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "verne/base/random.hpp"
#include "verne/text/regex.hpp"

namespace verne {
namespace {

std::vector<std::string> scan(WordPattern pattern, const std::string& text) {
  std::vector<std::string> words;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = next_word(pattern, UnicodeTables::get(), text, begin);
    words.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return words;
}

using Words = std::vector<std::string>;

TEST(WordScanner, Examples) {
  EXPECT_EQ(scan(WordPattern::gpt2, "It's 2024,  ok\n\n x"),
            (Words{"It", "'s", " 2024", ",", " ", " ok", "\n\n", " x"}));
  EXPECT_EQ(scan(WordPattern::llama3, "I'VE 12345!\n\n\tEnd  "),
            (Words{"I", "'VE", " ", "123", "45", "!\n\n", "\tEnd", "  "}));
  EXPECT_EQ(scan(WordPattern::qwen, "12 \r\n  (x)"), (Words{"1", "2", " \r\n", " ", " (", "x", ")"}));
}

TEST(WordScanner, RecognisesThePatternToTheLetter) {
  for (const WordPattern pattern : {WordPattern::gpt2, WordPattern::llama3, WordPattern::qwen}) {
    EXPECT_EQ(recognise_word_pattern(word_pattern_regex(pattern)), pattern);
    EXPECT_EQ(recognise_word_pattern(std::string(word_pattern_regex(pattern)) + "|x"), std::nullopt);
  }
}

/// Random strings of characters that the patterns tell apart, old enough that every Unicode version agrees on
/// them.
TEST(WordScanner, EqualsTheRegularExpression) {
  const std::vector<std::uint32_t> alphabet{
      ' ',    ' ',   ' ',  '\t',    '\n',    '\n',     '\r',   '\v',   '\'',   '\'',   '\'',
      's',    'S',   't',  'r',     'e',     'V',      'E',    'l',    'L',    'm',    'D',
      'z',    '0',   '7',  '!',     '.',     '_',      '$',    0,      0x1C,   0x7F,   0x85,
      0xA0,   0x17F, 0xE9, 0x301,   0x3B1,   0x661,    0x2028, 0x2003, 0x200D, 0x3000, 0x4E2D,
      0x2167, 0xBD,  0xAA, 0x1F642, 0x1D7D8, 0x10FFFF, 0xFEFF, 0x212A, 0xFB06};
  for (const WordPattern pattern : {WordPattern::gpt2, WordPattern::llama3, WordPattern::qwen}) {
    const Regex regex(std::string(word_pattern_regex(pattern)), "test");
    Regex::Matcher matcher(regex);
    const RandomSite site{.seed = 11, .site = static_cast<std::uint32_t>(pattern), .step = 0};
    std::uint64_t draw = 0;
    for (int round = 0; round < 20000; ++round) {
      std::string text;
      const std::uint64_t length = random_below(site, draw++, 16);
      for (std::uint64_t i = 0; i < length; ++i)
        append_utf8(text, alphabet[random_below(site, draw++, alphabet.size())]);
      Words expected;
      for (std::size_t from = 0; from < text.size();) {
        const auto match = matcher.find(text, from);
        ASSERT_TRUE(match && match->begin == from) << "the pattern leaves a gap";
        expected.push_back(text.substr(match->begin, match->end - match->begin));
        from = match->end;
      }
      ASSERT_EQ(scan(pattern, text), expected) << word_pattern_regex(pattern);
    }
  }
}

}  // namespace
}  // namespace verne
