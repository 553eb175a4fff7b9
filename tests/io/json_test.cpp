#include "verne/io/json.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "testing.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string error_of(const std::string& text, const JsonLimits& limits = {}) {
  try {
    parse_json(text, "deck/config.json", limits);
  } catch (const UserError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Json, KeepsOrderAndValues) {
  const std::string text =
      R"({"z": 1, "a": [true, null, -3, 1e-05, 1000000.0, 18446744073709551615], "m": {"y": "é", "b": {}}, "e": []})";
  const Json json = parse_json(text, "x");
  EXPECT_EQ(json.dump(),
            R"({"z":1,"a":[true,null,-3,1e-05,1000000.0,18446744073709551615],"m":{"y":"é","b":{}},"e":[]})");
  EXPECT_EQ(json["a"][3].get<double>(), 1e-5);
  EXPECT_EQ(parse_json("\xEF\xBB\xBF[1]", "x"), Json::array({1}));
  EXPECT_EQ(parse_json(" 7 ", "x"), Json(7));
}

TEST(Json, ErrorsNameTheFileAndThePlace) {
  EXPECT_THAT(error_of("{\"a\": 1,\n \"b\": }"),
              AllOf(StartsWith("deck/config.json: "), HasSubstr("byte 16"), HasSubstr("line 2, column 7")));
  EXPECT_THAT(error_of(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("{} {}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("\"\xff\""), HasSubstr("UTF-8"));
  EXPECT_THAT(error_of("1e999"), HasSubstr("not valid JSON"));
}

TEST(Json, BoundsDepthAndLength) {
  const std::string deep(100000, '[');
  EXPECT_THAT(error_of(deep), HasSubstr("deeper than 64 levels"));
  EXPECT_THAT(error_of(std::string(64, '[') + std::string(64, ']')), "accepted");
  EXPECT_THAT(error_of(std::string(65, '[') + std::string(65, ']')), HasSubstr("deeper"));
  EXPECT_THAT(error_of("[1, 2, 3]", {.max_bytes = 8}), HasSubstr("9 bytes of JSON, but at most 8"));
}

TEST(Json, DuplicateKeys) {
  const std::string text = R"({"a": {"k": 1, "l": 2, "k": [3]}, "k": 4})";
  EXPECT_THAT(error_of(text), AllOf(HasSubstr("\"k\""), HasSubstr("twice")));
  EXPECT_EQ(parse_json(text, "x", {.duplicate_keys = DuplicateKeys::last_wins}).dump(),
            R"({"a":{"k":[3],"l":2},"k":4})");
}

TEST(Json, LongObjectsTakeLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 200000; ++i) text += fmt::format("\"key{}\":{},", i, i);
  text += "\"end\":0}";
  EXPECT_EQ(parse_json(text, "x").size(), 200001u);
}

TEST(EditJson, KeepsEveryOtherByte) {
  const std::string text =
      "{\n    \"vocab_size\": 100,\n    \"eps\": 1E-5, \"big\": "
      "1000000000000000019884624838656,\n\t\"dtype\" : "
      "\"float32\",\n    \"inner\": {\"dtype\": [1,{\"dtype\":\"}\\\"\"}]}\n}\n";
  const JsonEdit edits[] = {
      {"dtype", Json("bfloat16")}, {"vocab_size", Json(128)}, {"new", Json::array({1, 2})}};
  EXPECT_EQ(edit_json(text, edits, "x"),
            "{\n    \"vocab_size\": 128,\n    \"eps\": 1E-5, \"big\": "
            "1000000000000000019884624838656,\n\t\"dtype\" : "
            "\"bfloat16\",\n    \"inner\": {\"dtype\": [1,{\"dtype\":\"}\\\"\"}]},\n    \"new\": [\n      "
            "1,\n      2\n    ]\n}\n");
  const JsonEdit none[] = {{"absent", std::nullopt}};
  EXPECT_EQ(edit_json(text, none, "x"), text);
}

TEST(EditJson, AddsAndRemovesAnywhere) {
  const auto edit = [](const std::string& text, const std::string& key, std::optional<Json> value) {
    const JsonEdit edits[] = {{key, std::move(value)}};
    return edit_json(text, edits, "x");
  };
  EXPECT_EQ(edit("{}", "a", Json(1)), "{\n  \"a\": 1\n}");
  EXPECT_EQ(edit(R"({"a": 1})", "b", Json("x")), R"({"a": 1, "b": "x"})");
  EXPECT_EQ(edit(R"({"a": 1, "b": 2, "c": 3})", "a", std::nullopt), R"({"b": 2, "c": 3})");
  EXPECT_EQ(edit(R"({"a": 1, "b": 2, "c": 3})", "b", std::nullopt), R"({"a": 1, "c": 3})");
  EXPECT_EQ(edit(R"({"a": 1, "b": 2, "c": 3})", "c", std::nullopt), R"({"a": 1, "b": 2})");
  EXPECT_EQ(edit(R"({"a": 1})", "a", std::nullopt), "{}");
  EXPECT_EQ(edit(R"({"a": 1, "a": 2, "b": 3, "a": 4})", "a", std::nullopt), R"({"b": 3})");
  EXPECT_EQ(edit(R"({"a": 1, "a": 2})", "a", Json(5)), R"({"a": 1, "a": 5})");
  EXPECT_EQ(edit("{\r\n \"a\":1\r\n}", "b", Json(2)), "{\r\n \"a\":1,\r\n \"b\": 2\r\n}");
  EXPECT_EQ(edit("\xEF\xBB\xBF{\"\\u0061\":[]}", "a", Json(true)), "\xEF\xBB\xBF{\"\\u0061\":true}");
  EXPECT_THROW(edit("[1]", "a", Json(1)), UserError);
  EXPECT_THROW(edit("{\"a\":", "a", Json(1)), UserError);
}

TEST(EditJson, WithoutEditsGoldenConfigsComeBack) {
  const auto shared = testing::shared_dir();
  if (!shared) GTEST_SKIP() << "the shared golden cases are not there";
  for (const char* family : {"llama", "qwen3", "mistral", "nemotron"}) {
    const auto path = *shared / "golden" / family / "config.json";
    const std::string text = testing::read_text(path);
    const JsonEdit edits[] = {{"dtype", parse_json(text, "x")["dtype"]}};
    EXPECT_EQ(edit_json(text, edits, "x"), text) << family;
    EXPECT_EQ(dump_json(read_json_file(path)), dump_json(Json::parse(text))) << family;
  }
}

}  // namespace
}  // namespace verne
