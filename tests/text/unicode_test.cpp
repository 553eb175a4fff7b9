#include "verne/text/unicode.hpp"

#include <gtest/gtest.h>

namespace verne {
namespace {

std::string utf8(std::initializer_list<std::uint32_t> code_points) {
  std::string text;
  for (const std::uint32_t c : code_points) append_utf8(text, c);
  return text;
}

TEST(Unicode, Classes) {
  const UnicodeTables& tables = UnicodeTables::get();
  EXPECT_EQ(tables.char_class('a'), CharClass::letter);
  EXPECT_EQ(tables.char_class(0x4E2D), CharClass::letter);
  EXPECT_EQ(tables.char_class(0x31350), CharClass::letter);
  EXPECT_EQ(tables.char_class(0x2167), CharClass::number);
  EXPECT_EQ(tables.char_class(0xBD), CharClass::number);
  EXPECT_EQ(tables.char_class(0x3000), CharClass::space);
  EXPECT_EQ(tables.char_class(0x85), CharClass::space);
  EXPECT_EQ(tables.char_class(0x180E), CharClass::other);
  EXPECT_EQ(tables.char_class('\r'), CharClass::newline);
  EXPECT_EQ(tables.char_class(0x301), CharClass::other);
  EXPECT_TRUE(tables.is_word(0x301));
  EXPECT_TRUE(tables.is_word('_'));
  EXPECT_FALSE(tables.is_word(0xBD));
  EXPECT_TRUE(tables.is_punctuation('$'));
  EXPECT_TRUE(tables.is_punctuation(0x3001));
  EXPECT_FALSE(tables.is_punctuation(0x20AC));
}

TEST(Unicode, Utf8) {
  EXPECT_EQ(utf8({0x24, 0xA2, 0x20AC, 0x10348}), "$\xC2\xA2\xE2\x82\xAC\xF0\x90\x8D\x88");
  EXPECT_EQ(decode_char_before("a\xE2\x82\xAC", 4).code_point, 0x20ACu);
  for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\x80", "\xED\xA0\x80", "\xF0\x8F\x80\x80",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xE2\x82", "abcdefghij\xFF"})
    EXPECT_FALSE(is_valid_utf8(bad)) << bad;
  EXPECT_TRUE(is_valid_utf8("abcdefghij\xF4\x8F\xBF\xBF\xED\x9F\xBF"));
  EXPECT_FALSE(is_ascii("0123456789012345678901234567890\xC3\xA9"));
  EXPECT_TRUE(is_ascii("0123456789012345678901234567890123456789"));
}

TEST(Unicode, EachMaximalIllFormedPartIsReplacedOnce) {
  const std::string mark = "\xEF\xBF\xBD";
  EXPECT_EQ(replace_invalid_utf8("a\xF0\x9F\x99z"), "a" + mark + "z");
  EXPECT_EQ(replace_invalid_utf8("\xE2\x82\xE2\x82\xAC"), mark + "\xE2\x82\xAC");
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), mark + mark + mark);
  EXPECT_EQ(replace_invalid_utf8("\xC0\x80\xFF"), mark + mark + mark);
}

TEST(Unicode, NormalForms) {
  EXPECT_EQ(normalize_unicode("e\xCC\x81", NormalForm::nfc), "\xC3\xA9");
  EXPECT_EQ(normalize_unicode(utf8({0x212B}), NormalForm::nfc), utf8({0xC5}));            // a singleton
  EXPECT_EQ(normalize_unicode(utf8({0x1100, 0x1161}), NormalForm::nfc), utf8({0xAC00}));  // Hangul
  EXPECT_EQ(normalize_unicode(utf8({0xFF21, 0xFB01}), NormalForm::nfkc), "Afi");
  EXPECT_EQ(to_lower(utf8({'A', 0x130, 0x3A3})), utf8({'a', 'i', 0x307, 0x3C3}));
}

/// Where the quick answer says "already NFC", taking the text apart and composing it again must give it back.
TEST(Unicode, TheQuickCheckIsNeverWrong) {
  const UnicodeTables& tables = UnicodeTables::get();
  std::int64_t inert = 0;
  for (std::uint32_t c = 0x80; c < 0x30000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    if (!tables.is_nfc_inert(c)) continue;
    ++inert;
    const std::string alone = utf8({c}), after = utf8({'a', 0x323, c, 0x301});
    ASSERT_EQ(normalize_unicode(normalize_unicode(alone, NormalForm::nfd), NormalForm::nfc), alone) << c;
    // A mark composes with it or not, but nothing moves over it.
    ASSERT_EQ(normalize_unicode(after, NormalForm::nfc).substr(0, 3), utf8({0x1EA1})) << c;
  }
  EXPECT_GT(inert, 150000);
  for (const std::uint32_t c : {0x301u, 0x212Bu, 0x958u, 0x1161u, 0x9BEu})
    EXPECT_FALSE(tables.is_nfc_inert(c)) << c;
}

TEST(Unicode, StripSpaces) {
  EXPECT_EQ(strip_spaces(" \t\n\x1C" + utf8({0xA0, 0x3000}) + "a b\x85"), "a b\x85");
  EXPECT_EQ(strip_spaces(utf8({'x', 0x2028, 0x85})), "x");
  EXPECT_EQ(strip_spaces("  \n"), "");
}

}  // namespace
}  // namespace verne
