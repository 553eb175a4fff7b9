#include "verne/io/jsonl.hpp"

#include <gtest/gtest.h>

#include "testing.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

using Lines = std::vector<std::string>;

struct Case {
  testing::TemporaryDirectory directory;
  JsonlFile file;
  explicit Case(const std::string& text)
      : file((testing::write_text(directory.path() / "x", text), directory.path() / "x")) {}
};

Lines collect(JsonlFile::Reader reader) {
  Lines lines;
  while (const auto line = reader.next()) lines.emplace_back(line->text);
  return lines;
}

TEST(Jsonl, AcceptsMarkLineEndsAndBlankLines) {
  const Case c("\xEF\xBB\xBF{\"a\":1}\r\n\r\n  \t\n{\"b\":2}\n\n{\"c\":3}");
  EXPECT_EQ(collect(c.file.lines()), (Lines{"{\"a\":1}", "{\"b\":2}", "{\"c\":3}"}));
  auto reader = c.file.lines();
  EXPECT_EQ(reader.next()->offset, 3);
  const auto second = reader.next();
  EXPECT_EQ(c.file.line_number(second->offset), 4);
  EXPECT_EQ(c.file.line_number(reader.next()->offset), 6);
  EXPECT_FALSE(reader.next());
  EXPECT_FALSE(reader.next());
}

TEST(Jsonl, EmptyFilesHaveNoLines) {
  EXPECT_EQ(collect(Case("").file.lines()), Lines{});
  EXPECT_EQ(collect(Case("\xEF\xBB\xBF").file.lines()), Lines{});
  EXPECT_EQ(collect(Case("\n\r\n\n").file.lines()), Lines{});
}

TEST(Jsonl, RangesTogetherAreTheFile) {
  std::string text = "\xEF\xBB\xBF";
  Lines all;
  for (int i = 0; i < 57; ++i) {
    all.push_back(std::string(static_cast<std::size_t>(1 + i * i % 37), 'a' + static_cast<char>(i % 26)));
    text += all.back() + (i % 3 ? "\n" : "\r\n");
  }
  text += "last without an end";
  all.emplace_back("last without an end");
  const Case c(text);
  for (const std::int64_t parts : {1, 2, 3, 4, 7, 64, 2000}) {
    const auto ranges = c.file.split(parts);
    ASSERT_EQ(static_cast<std::int64_t>(ranges.size()), parts);
    Lines lines;
    std::int64_t at = 0;
    for (const ByteRange& range : ranges) {
      ASSERT_EQ(range.begin, at);
      at = range.end;
      for (std::string& line : collect(c.file.lines(range))) lines.push_back(std::move(line));
    }
    ASSERT_EQ(at, c.file.size());
    ASSERT_EQ(lines, all) << parts;
  }
  const auto four = c.file.split(4);
  for (const ByteRange& range : four)
    EXPECT_NEAR(static_cast<double>(range.end - range.begin), static_cast<double>(text.size()) / 4, 40);
}

TEST(Jsonl, MissingFileIsAUserError) {
  EXPECT_THROW(JsonlFile("/nonexistent/x.jsonl"), UserError);
}

}  // namespace
}  // namespace verne
