#include "verne/base/printable.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "verne/base/error.hpp"

namespace verne {
namespace {

TEST(Printable, KeepsTextOfEveryLanguage) {
  const std::string text = "A line, a tab\tand « é ß Ω 漢字 🚀 »\nsecond line\\n";
  EXPECT_EQ(printable(text), text);
  EXPECT_EQ(one_line("« é ß Ω 漢字 🚀 »"), "« é ß Ω 漢字 🚀 »");
  // The edges of what UTF-8 encodes.
  const std::string edges =
      "\xC2\xA0\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xF0\x90\x80\x80\xF4\x8F\xBF\xBF";
  EXPECT_EQ(printable(edges), edges);
  EXPECT_EQ(printable(""), "");
}

TEST(Printable, SpellsControlCharacters) {
  EXPECT_EQ(printable("\x1b[31mred\x1b[0m\x07"), "\\x1b[31mred\\x1b[0m\\x07");
  EXPECT_EQ(printable(std::string_view("\0\x08\x0b\x7f", 4)), "\\x00\\x08\\x0b\\x7f");
  EXPECT_EQ(printable("over\rwritten\r\n"), "over\\rwritten\\r\n");
  // C1: a terminal may take U+009B for ESC [, and U+0085 for a new line.
  EXPECT_EQ(printable("\xC2\x9B"
                      "31m\xC2\x85\xC2\x80\xC2\x9F"),
            "\\u009b31m\\u0085\\u0080\\u009f");
}

TEST(Printable, SpellsWhatIsNoUtf8ByteByByte) {
  EXPECT_EQ(printable("\x9b\x80\xff"), "\\x9b\\x80\\xff");  // continuations and no byte at all
  EXPECT_EQ(printable("\xc3"), "\\xc3");                    // cut off at the end
  EXPECT_EQ(printable("\xe6\xbc x"), "\\xe6\\xbc x");       // and within
  EXPECT_EQ(printable("\xc0\x9b \xe0\x82\x9b"), "\\xc0\\x9b \\xe0\\x82\\x9b");  // longer forms of U+009B
  EXPECT_EQ(printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");                      // a surrogate
  EXPECT_EQ(printable("\xf4\x90\x80\x80 \xf5\x80\x80\x80"), "\\xf4\\x90\\x80\\x80 \\xf5\\x80\\x80\\x80");
  EXPECT_EQ(printable("\xf0\x8f\xbf\xbf"), "\\xf0\\x8f\\xbf\\xbf");
  EXPECT_EQ(printable("\xf0\x9f\x9a\x1b"), "\\xf0\\x9f\\x9a\\x1b");
}

TEST(OneLine, SpellsLineBreaksToo) {
  EXPECT_EQ(one_line("a\nerror: forged\tb\r\n\x1b"), "a\\nerror: forged\\tb\\r\\n\\x1b");
}

TEST(MessageText, ForeignTextStaysInItsLine) {
  const std::string name = "weight\nerror: forged\x1b[2J";
  const char* pointer = "a\tb";
  EXPECT_EQ(
      message_text("{}:\n  {} of {} {:<5}|{:>6.2f}", name, pointer, std::string_view("\xff"), "x\n", 1.5),
      "weight\\nerror: forged\\x1b[2J:\n  a\\tb of \\xff x\\n  |  1.50");
  EXPECT_EQ(message_text("differs:{}", OwnLines{"\n  one\x1b\n  two"}), "differs:\n  one\\x1b\n  two");
}

TEST(MessageText, ErrorsAreMadeWithIt) {
  const std::string name = "a\nb\x9b";
  const auto text_of = [](auto&& raise) {
    try {
      raise();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(text_of([&] { throw_user_error("no\n{}", name); }), "no\na\\nb\\x9b");
  EXPECT_EQ(text_of([&] { throw_system_error("no\n{}", name); }), "no\na\\nb\\x9b");
  EXPECT_EQ(text_of([&] { require(false, "no\n{}", name); }), "no\na\\nb\\x9b");
  EXPECT_EQ(text_of([&] { require_user(false, "no\n{}", name); }), "no\na\\nb\\x9b");
  EXPECT_EQ(text_of([&] { throw_errno(name + " cannot be read", ENOENT); }),
            "a\\nb\\x9b cannot be read: No such file or directory");
}

TEST(ThrowErrno, SaysThatTheDiskIsFull) {
  for (const int error : {ENOSPC, EDQUOT, EFBIG}) {
    EXPECT_TRUE(is_disk_full(error));
    try {
      throw_errno("metrics.csv cannot be written", error);
    } catch (const SystemError& found) {
      EXPECT_THAT(found.what(), ::testing::StartsWith("metrics.csv cannot be written: the disk is full or a "
                                                      "size limit is reached ("));
      EXPECT_EQ(found.exit_code(), ExitCode::failure);
    }
  }
  EXPECT_FALSE(is_disk_full(EIO));
}

}  // namespace
}  // namespace verne
