// Files that hold terminal codes, line breaks and broken UTF-8 where names and values are expected: nothing
// of it reaches the screen or a log as it stands.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <sstream>

#include "cli.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/io/shard.hpp"

namespace verne::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

/// Clears the screen in two ways, forges an error and hides what follows. Valid UTF-8.
const std::string kHostile =
    "a\x1b[2J\xC2\x9B"
    "31m\nerror: forged\r\x7f\b\x1b]0;title\x07";
const std::string kSpelled = "a\\x1b[2J\\u009b31m";

/// Fails where `text` holds a control character other than a line break or tab, what is no UTF-8, or a line
/// that a file's content forged.
void expect_tame(const std::string& text, const std::string& what) {
  std::string found;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F) found += fmt::format(" {:02x}", byte);
    if (byte == 0xC2 && next >= 0x80 && next < 0xA0) found += fmt::format(" U+{:04X}", next);
    if (byte == 0xC0 || byte == 0xC1 || byte >= 0xF5) found += fmt::format(" {:02x}", byte);
  }
  EXPECT_EQ(found, "") << what << ":\n" << text;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) EXPECT_FALSE(line.starts_with("error: forged")) << what;
}

class HostileText : public ::testing::Test {
 protected:
  void SetUp() override {
    write_small_case(root());
    copy_folder(small_model(), root() / "hf");
  }
  const fs::path& root() const { return directory_.path(); }

  /// Both streams and the run's logs are tame, and one stream holds `words`.
  void expect_tame_output(const std::string& arguments, const std::string& words, int exit_code = 2,
                          int ranks = 1) const {
    const CommandResult result = verne(root(), ranks, arguments);
    SCOPED_TRACE(fmt::format("{} on {} ranks", arguments, ranks));
    EXPECT_EQ(result.exit_code, exit_code);
    expect_tame(result.output, "standard output");
    expect_tame(result.errors, "standard error");
    EXPECT_THAT(result.output + result.errors, HasSubstr(words));
    if (!fs::exists(root() / "run" / "logs")) return;
    for (const auto& [name, text] : snapshot(root() / "run" / "logs")) expect_tame(text, name);
  }

 private:
  TemporaryDirectory directory_;
};

TEST_F(HostileText, NamesInASafetensorsHeader) {
  RawSafetensors content = read_safetensors(root() / "hf" / "model.safetensors");
  content.header[kHostile] = content.header["model.norm.weight"];
  content.header.erase("model.norm.weight");
  write_safetensors(root() / "hf" / "model.safetensors", content);
  for (const int ranks : {1, 2})
    expect_tame_output("import --import.input=hf --import.output=model.h5", kSpelled, 2, ranks);
  expect_tame_output("inspect --inspect.input=hf", kSpelled, 0);
  content.header[kHostile]["dtype"] = kHostile;
  write_safetensors(root() / "hf" / "model.safetensors", content);
  expect_tame_output("import --import.input=hf --import.output=model.h5", kSpelled);
  expect_tame_output("inspect --inspect.input=hf", kSpelled);
  content.header[kHostile]["dtype"] = "F32";
  content.header[kHostile]["shape"] = {7};
  write_safetensors(root() / "hf" / "model.safetensors", content);
  expect_tame_output("inspect --inspect.input=hf", kSpelled);
  // Bytes that JSON itself does not allow.
  const std::string header = "{\"x\xff\x9b\x1b[2J\": 7}      ";
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size());
  write_text(root() / "hf" / "model.safetensors", bytes + header);
  expect_tame_output("inspect --inspect.input=hf", "model.safetensors");
}

TEST_F(HostileText, RecordsOfJsonl) {
  const auto refused = [&](const std::string& line, const std::string& words, int ranks = 1) {
    write_text(root() / "records.jsonl", line + "\n");
    expect_tame_output(
        "prepare --prepare.tokenizer=tokenizer --prepare.template=qwen3 --prepare.input=records.jsonl "
        "--prepare.output=shards",
        words, 2, ranks);
  };
  const std::string role = json({{"messages", {{{"role", kHostile}, {"content", "x"}}}}}).dump();
  for (const int ranks : {1, 2}) refused(role, kSpelled, ranks);
  refused(json({{kHostile, 1}}).dump(), kSpelled);
  refused("{\"input\": \"\x1b[2J\xff\x9b\", \"output\": \"x\"}", "records.jsonl");
  refused("\x1b[2J\xff\x9b", "records.jsonl");
}

/// A document that is shown keeps its line breaks.
TEST_F(HostileText, DocumentsThatAreShown) {
  const std::string text = "a\x1b[2J\xC2\x9B\x01\xC2\x85\r\x7f";
  write_text(root() / "train.jsonl",
             json({{"question", text}, {"answer", text}}).dump() + "\n" + small_records(0, 20));
  expect_tame_output(
      "prepare deck.ini --prepare.input=train.jsonl --prepare.output=shards --prepare.split=1,0,0 "
      "--prepare.show=2",
      "a\\x1b[2J\\u009b\\x01\\u0085\\r\\x7f", 0);
  expect_tame_output("train deck.ini --run.dry_run --data.shuffle=false",
                     "a\\x1b[2J\\u009b\\x01\\u0085\\r\\x7f", 0);
}

TEST_F(HostileText, ValuesOfConfig) {
  const json good = json::parse(read_text(root() / "hf" / "config.json"));
  for (const auto& [key, value] : std::map<std::string, json>{{"model_type", kHostile},
                                                              {"architectures", {kHostile}},
                                                              {"hidden_act", kHostile},
                                                              {"vocab_size", kHostile},
                                                              {"rope_scaling", {{"type", kHostile}}},
                                                              {"layer_types", {kHostile, kHostile}}}) {
    json config = good;
    config[key] = value;
    write_text(root() / "hf" / "config.json", config.dump());
    expect_tame_output("import --import.input=hf --import.output=model.h5", key);
  }
  write_text(root() / "hf" / "config.json", "{\"model_type\": \"\x1b\xff\x9b\"}");
  expect_tame_output("import --import.input=hf --import.output=model.h5", "config.json");
}

TEST_F(HostileText, TokensOfATokenizer) {
  const json good = json::parse(read_text(root() / "tokenizer" / "tokenizer.json"));
  const std::string tokenize =
      "tokenize --tokenize.input=lines.jsonl --tokenize.output=ids.jsonl "
      "--tokenize.tokenizer=tokenizer";
  write_text(root() / "lines.jsonl", "{\"text\": \"one\"}\n");
  json changed = good;
  changed["model"]["vocab"][kHostile] = changed["model"]["vocab"].begin().value();  // an id twice
  write_text(root() / "tokenizer" / "tokenizer.json", changed.dump());
  expect_tame_output(tokenize, kSpelled);
  changed = good;
  changed["pre_tokenizer"]["type"] = kHostile;
  write_text(root() / "tokenizer" / "tokenizer.json", changed.dump());
  expect_tame_output(tokenize, kSpelled);
}

TEST_F(HostileText, DecksAndCommandLines) {
  write_text(root() / "bad.ini", "[run]\ndi\xC2\x9B\x9b = x\n");
  for (const int ranks : {1, 2}) expect_tame_output("train bad.ini", "di\\u009b\\x9b", 2, ranks);
  write_text(root() / "bad.ini", "[optimizer]\nlr = \"\xff\\nerror: forged\"\n");
  expect_tame_output("train bad.ini", "\\xff\\nerror: forged");
  expect_tame_output("train deck.ini --model.config=\"$(printf 'no\\033[2J\\nerror: forged')\"",
                     "no\\x1b[2J\\nerror: forged");
  expect_tame_output("train deck.ini \"--\033[2J=1\"", "\\x1b[2J");
  expect_tame_output("\"\033[2J\"", "\\x1b[2J");
}

TEST_F(HostileText, NamesAndStringsOfHdf5) {
  {
    ShardWriter writer(
        root() / "shard.h5", HostGroup(),
        {.tokenizer_hash = kHostile,
         .chat_template = kHostile,
         .tokenizer_files = {{"tokenizer.json", json({{"model", {{"type", kHostile}}}}).dump()}},
         .attributes = {{kHostile, kHostile}}});
    const std::vector<std::uint32_t> tokens = {1, 2};
    const std::vector<std::uint8_t> mask = {0, 1};
    writer.append(tokens, mask, "{}");
    writer.finish();
  }
  expect_tame_output("inspect --inspect.input=shard.h5", kSpelled, 0);
  expect_tame_output("train deck.ini --data.train=shard.h5 --data.validation=shard.h5", kSpelled);
}

TEST_F(HostileText, HeaderOfMetrics) {
  ASSERT_EQ(verne(root(), 1, "train deck.ini --train.stop_step=3").exit_code, 75);
  write_text(root() / "run" / "metrics.csv", "step,\x1b[2J\xff\n");
  expect_tame_output("train deck.ini", "step,\\x1b[2J\\xff");
}

}  // namespace
}  // namespace verne::testing
