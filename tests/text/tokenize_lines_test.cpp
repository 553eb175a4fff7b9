#include "verne/text/tokenize_lines.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "testing.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

using Json = nlohmann::json;

Tokenizer golden_tokenizer() {
  return Tokenizer::load(testing::golden_dir() / "tokenizers" / "llama3");
}

TEST(TokenizeLines, ALineForEachLine) {
  const auto golden = testing::golden_dir() / "tokenizers" / "llama3" / "golden.jsonl";
  const std::string output = tokenize_lines(golden_tokenizer(), testing::read_text(golden), golden.string());
  std::istringstream lines(output);
  std::ifstream expected(golden);
  std::string line, wanted;
  std::int64_t count = 0;
  while (std::getline(expected, wanted)) {
    ASSERT_TRUE(std::getline(lines, line));
    Json record = Json::parse(wanted);
    record.erase("text");
    EXPECT_EQ(Json::parse(line), record);
    ++count;
  }
  EXPECT_FALSE(std::getline(lines, line));
  EXPECT_GT(count, 100);
}

TEST(TokenizeLines, MarksReturnsAndBlankLines) {
  const std::string input = "\xEF\xBB\xBF{\"text\": \"a\"}\r\n\r\n  \n{\"text\": \"\"}";
  const std::string output = tokenize_lines(golden_tokenizer(), input, "in.jsonl");
  EXPECT_EQ(std::count(output.begin(), output.end(), '\n'), 2);
  EXPECT_TRUE(output.ends_with("{\"ids\": [], \"with_special\": [" +
                               std::to_string(*golden_tokenizer().bos_id()) + "], \"decoded\": \"\"}\n"));
}

TEST(TokenizeLines, ErrorsNameTheLine) {
  const auto error_of = [](const std::string& input) -> std::string {
    try {
      tokenize_lines(golden_tokenizer(), input, "in.jsonl");
    } catch (const UserError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(error_of("{\"text\": \"a\"}\n\n{\"text\""), ::testing::HasSubstr("in.jsonl:3: not valid JSON"));
  EXPECT_THAT(error_of("{\"words\": \"a\"}"),
              ::testing::HasSubstr("in.jsonl:1: expected an object with the key 'text'"));
  EXPECT_THAT(error_of("{\"text\": 5}"), ::testing::HasSubstr("is number"));
}

}  // namespace
}  // namespace verne
