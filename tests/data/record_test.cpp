#include "verne/data/record.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "verne/base/error.hpp"

namespace verne {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <class T>
T parse_as(const std::string& line, RecordOptions options = {}, std::string* metadata = nullptr) {
  const Record record = RecordParser(options).parse(line);
  if (metadata != nullptr) *metadata = record.metadata;
  return std::get<T>(std::get<TextRecord>(record.content));
}

std::string error_of(const std::string& line, RecordOptions options = {}) {
  try {
    RecordParser(options).parse(line);
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

TEST(RecordParser, InputAndOutput) {
  std::string metadata;
  const auto pair = parse_as<PromptCompletion>(
      R"({"id": 7, "input": "a\nb", "output": "ü", "tags": ["x", {"y": null}], "odd\"key": 0.5})", {},
      &metadata);
  EXPECT_EQ(pair.prompt, "a\nb");
  EXPECT_EQ(pair.completion, "ü");
  EXPECT_FALSE(pair.system.has_value());
  EXPECT_EQ(metadata, R"({"id":7,"tags":["x",{"y":null}],"odd\"key":0.5})");
}

TEST(RecordParser, PromptAndCompletionWithSystem) {
  std::string metadata;
  const auto pair =
      parse_as<PromptCompletion>(R"({"prompt":"p","completion":"c","system":"be brief"})", {}, &metadata);
  EXPECT_EQ(pair.prompt, "p");
  EXPECT_EQ(pair.completion, "c");
  EXPECT_EQ(pair.system, "be brief");
  EXPECT_EQ(metadata, "{}");
}

TEST(RecordParser, InstructionComesBeforeInputAndText) {
  std::string metadata;
  const auto record = parse_as<Instruction>(
      R"({"instruction":"i","input":"","output":"o","text":"all of it"})", {}, &metadata);
  EXPECT_EQ(record.instruction, "i");
  EXPECT_EQ(record.input, "");
  EXPECT_EQ(record.output, "o");
  EXPECT_EQ(metadata, R"({"text":"all of it"})");
}

TEST(RecordParser, Messages) {
  const auto chat = parse_as<Conversation>(
      R"({"system":"s","messages":[{"role":"user","content":"u"},{"role":"assistant","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"reasoning_content":"r"}]})");
  ASSERT_EQ(chat.messages.size(), 3u);
  EXPECT_EQ(chat.messages[0].role, "system");
  EXPECT_EQ(chat.messages[0].content, "s");
  EXPECT_EQ(chat.messages[1].content, "u");
  EXPECT_EQ(chat.messages[2].content, "ab");
  EXPECT_EQ(chat.messages[2].reasoning_content, "r");
}

TEST(RecordParser, Conversations) {
  const auto chat = parse_as<Conversation>(
      R"({"conversations":[{"from":"human","value":"u"},{"from":"gpt","value":"a"}],"source":"x"})");
  ASSERT_EQ(chat.messages.size(), 2u);
  EXPECT_EQ(chat.messages[0].role, "human");
  EXPECT_EQ(chat.messages[1].content, "a");
}

TEST(RecordParser, Text) {
  EXPECT_EQ(parse_as<PlainText>(R"({"text":"hello"})").text, "hello");
}

TEST(RecordParser, OtherKeys) {
  const RecordOptions options{.input_key = "question", .output_key = "answer"};
  std::string metadata;
  const auto pair =
      parse_as<PromptCompletion>(R"({"question":"q","answer":"a","input":"kept"})", options, &metadata);
  EXPECT_EQ(pair.prompt, "q");
  EXPECT_EQ(pair.completion, "a");
  EXPECT_EQ(metadata, R"({"input":"kept"})");
  EXPECT_THAT(error_of(R"({"question":"q"})", options), HasSubstr("'answer' is missing; found 'question'"));
  EXPECT_EQ(parse_as<PromptCompletion>(R"({"q":"1","output":"2"})", {.input_key = "q"}).completion, "2");
}

TEST(RecordParser, Tokens) {
  RecordParser parser({.vocab_size = 10});
  const Record plain = parser.parse(R"({"tokens":[9,0,3]})");
  EXPECT_THAT(std::get<TokenizedRecord>(plain.content).tokens, ElementsAre(9, 0, 3));
  EXPECT_THAT(std::get<TokenizedRecord>(plain.content).loss_mask, ElementsAre(0, 1, 1));
  const Record masked = parser.parse(R"({"tokens":[1,2,3],"loss_mask":[1,0,true],"id":"x"})");
  EXPECT_THAT(std::get<TokenizedRecord>(masked.content).loss_mask, ElementsAre(0, 0, 1));
  EXPECT_EQ(masked.metadata, R"({"id":"x"})");
}

TEST(RecordParser, BadTokensAreNamed) {
  const RecordOptions options{.vocab_size = 10};
  EXPECT_THAT(error_of(R"({"tokens":[1,-2]})", options),
              HasSubstr("tokens[1] is -2, expected an integer from 0 to 9"));
  EXPECT_THAT(error_of(R"({"tokens":[1.5]})", options), HasSubstr("tokens[0] is 1.5"));
  EXPECT_THAT(error_of(R"({"tokens":[10]})", options), HasSubstr("tokens[0] is 10"));
  EXPECT_THAT(error_of(R"({"tokens":["a"]})", options), HasSubstr("tokens[0] is \"a\""));
  EXPECT_THAT(error_of(R"({"tokens":[18446744073709551615]})"),
              HasSubstr("tokens[0] is 18446744073709551615"));
  EXPECT_THAT(error_of(R"({"tokens":[1,2],"loss_mask":[1]})"),
              HasSubstr("loss_mask has 1 entries, expected 2"));
  EXPECT_THAT(error_of(R"({"tokens":[1],"loss_mask":[2]})"), HasSubstr("loss_mask[0] is 2, expected 0 or 1"));
}

TEST(RecordParser, OtherErrorsSayWhatWasFound) {
  EXPECT_THAT(error_of("{\"input\": "), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("[1]"), HasSubstr("found an array, expected a JSON object"));
  EXPECT_THAT(error_of(R"({"input":1,"output":"x"})"), HasSubstr("'input' is an integer, expected a string"));
  EXPECT_THAT(error_of(R"({"question":"x"})"), HasSubstr("found 'question'; expected input and output"));
  EXPECT_THAT(error_of(R"({"messages":[]})"), HasSubstr("'messages' is empty"));
  EXPECT_THAT(error_of(R"({"messages":[3]})"), HasSubstr("message 0 of 'messages' is an integer"));
  EXPECT_THAT(error_of(R"({"messages":[{"role":"user"}]})"), HasSubstr("'content' is missing"));
  EXPECT_THAT(error_of(R"({"messages":[{"role":"assistant","content":"","tool_calls":[{}]}]})"),
              HasSubstr("tool calls"));
  EXPECT_THAT(error_of(R"({"system":"a","messages":[{"role":"system","content":"b"}]})"),
              HasSubstr("'system'"));
  EXPECT_THAT(error_of("{}"), HasSubstr("found no field"));
}

TEST(RecordParser, TimesAreNumbersOrDates) {
  RecordParser parser;
  EXPECT_EQ(parser.parse_time(R"({"t": 1700000000000000001})", "t").value, 1700000000000000001.0L);
  EXPECT_EQ(parser.parse_time(R"({"t": -2.5})", "t").value, -2.5L);
  const auto date = parser.parse_time(R"({"t": "1970-01-02"})", "t");
  EXPECT_EQ(date.value, 86400.0L);
  EXPECT_EQ(date.kind, RecordParser::Time::Kind::iso8601);
  EXPECT_THROW(parser.parse_time(R"({"t": "soon"})", "t"), UserError);
  EXPECT_THROW(parser.parse_time(R"({"t": null})", "t"), UserError);
  EXPECT_THROW(parser.parse_time(R"({"u": 1})", "t"), UserError);
}

}  // namespace
}  // namespace verne
