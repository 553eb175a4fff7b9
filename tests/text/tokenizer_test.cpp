#include "verne/text/tokenizer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "testing.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;
using Json = nlohmann::json;

/// Every line of a golden.jsonl beside a tokenizer.json.
void expect_golden(const fs::path& folder) {
  const Tokenizer tokenizer = Tokenizer::load(folder);
  Encoder encoder(tokenizer);
  std::ifstream file(folder / "golden.jsonl");
  std::string line;
  std::int64_t lines = 0, wrong = 0;
  while (std::getline(file, line)) {
    if (line.empty()) continue;
    ++lines;
    const Json record = Json::parse(line);
    const auto text = record["text"].get<std::string>();
    std::vector<TokenId> ids;
    encoder.encode(text, ids);
    const bool same = ids == record["ids"].get<std::vector<TokenId>>() && tokenizer.encode(text) == ids &&
                      tokenizer.with_special(ids) == record["with_special"].get<std::vector<TokenId>>() &&
                      tokenizer.decode(ids) == record["decoded"].get<std::string>();
    if (same || ++wrong > 5) continue;
    ADD_FAILURE() << folder << " line " << lines << "\n text " << record["text"].dump() << "\n ids "
                  << Json(ids).dump() << "\n expected " << record["ids"].dump() << "\n decoded "
                  << Json(tokenizer.decode(ids)).dump() << "\n expected " << record["decoded"].dump();
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(lines, 20);
}

class SharedTokenizer : public ::testing::TestWithParam<std::string> {};
TEST_P(SharedTokenizer, EqualsHuggingFace) {
  const auto shared = testing::shared_dir();
  if (!shared) GTEST_SKIP() << "the shared folder is not here";
  expect_golden(*shared / "tokenizers" / GetParam());
}
INSTANTIATE_TEST_SUITE_P(Text, SharedTokenizer,
                         ::testing::Values("qwen3", "gpt2", "mistral_v3", "small_llama3", "small_bytelevel"),
                         [](const auto& info) { return info.param; });

class OwnTokenizer : public ::testing::TestWithParam<std::string> {};
TEST_P(OwnTokenizer, EqualsHuggingFace) {
  expect_golden(testing::golden_dir() / "tokenizers" / GetParam());
}
INSTANTIATE_TEST_SUITE_P(Text, OwnTokenizer,
                         ::testing::Values("qwen", "llama3", "deepseek", "gpt2", "sentencepiece",
                                           "sentencepiece_legacy", "characters"),
                         [](const auto& info) { return info.param; });

/// A character-level BPE with what `changes` says otherwise.
std::string tiny_json(const std::string& changes = "{}") {
  Json json = Json::parse(R"({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
    "post_processor": null, "decoder": null, "model": {"type": "BPE", "unk_token": null,
    "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3, "abc": 4, "bc": 5}, "merges": ["b c", "a b", "ab c"]}})");
  json.merge_patch(Json::parse(changes));
  return json.dump();
}
Tokenizer tiny(const std::string& changes = "{}") {
  return Tokenizer::from_json(tiny_json(changes), "", "tiny.json");
}

using Ids = std::vector<TokenId>;

TEST(Tokenizer, MergesTheLowestRankFirst) {
  EXPECT_EQ(tiny().encode("abc"), (Ids{0, 5}));  // "b c" comes before "a b"
  EXPECT_EQ(tiny().encode("abab"), (Ids{2, 2}));
  EXPECT_EQ(tiny().encode("axb"), (Ids{2}));  // no token for x and no unknown token: dropped
  EXPECT_EQ(tiny(R"({"model": {"ignore_merges": true}})").encode("abc"), (Ids{4}));
}

TEST(Tokenizer, LongPiecesMergeLikeShortOnes) {
  std::string text;
  Ids expected;
  for (int i = 0; i < 500; ++i) {
    text += "abbcab";
    expected.insert(expected.end(), {2, 5, 2});
  }
  EXPECT_EQ(tiny().encode(text), expected);
  EXPECT_EQ(tiny().encode(text.substr(0, 12)), (Ids{2, 5, 2, 2, 5, 2}));
}

TEST(Tokenizer, UnknownCharacters) {
  const std::string unknown = R"({"model": {"unk_token": "c", "fuse_unk": true}})";
  EXPECT_EQ(tiny(unknown).encode("xyaz"), (Ids{3, 0, 3}));
  EXPECT_EQ(tiny(R"({"model": {"unk_token": "c"}})").encode("xya"), (Ids{3, 3, 0}));
  const std::string fallback = R"({"model": {"byte_fallback": true, "vocab": {"<0xC3>": 6, "<0xA9>": 7}},
                                   "decoder": {"type": "ByteFallback"}})";
  EXPECT_EQ(tiny(fallback).encode("a\xC3\xA9"), (Ids{0, 6, 7}));
  EXPECT_EQ(tiny(fallback).decode(Ids{0, 6, 7}), "a\xC3\xA9");
  EXPECT_EQ(tiny(fallback).decode(Ids{7, 7, 0}),
            "\xEF\xBF\xBD\xEF\xBF\xBD"
            "a");
}

TEST(Tokenizer, AddedTokensAreCutOutFirst) {
  const std::string added = R"({"added_tokens": [
    {"id": 6, "content": "<x>", "special": true, "normalized": false},
    {"id": 7, "content": "<x>b", "special": true, "normalized": false},
    {"id": 8, "content": "ca", "special": false, "normalized": false, "single_word": true},
    {"id": 9, "content": "<r>", "special": false, "normalized": false, "lstrip": true, "rstrip": true}]})";
  const Tokenizer tokenizer = tiny(added);
  EXPECT_EQ(tokenizer.encode("a<x>b"), (Ids{0, 7}));  // the longest
  EXPECT_EQ(tokenizer.encode("a<x>ab"), (Ids{0, 6, 2}));
  EXPECT_EQ(tokenizer.encode("ca ca,bca"), (Ids{8, 8, 5, 0}));  // single_word: not at the end of a word
  EXPECT_EQ(tokenizer.encode("a  <r> \n b"), (Ids{0, 9, 1}));
  EXPECT_EQ(tokenizer.vocab_size(), 10);
  EXPECT_TRUE(tokenizer.is_added(6));
  EXPECT_FALSE(tokenizer.is_added(5));
  EXPECT_EQ(tokenizer.id_of("<x>"), 6u);
  EXPECT_EQ(tokenizer.token_of(9), "<r>");
  EXPECT_EQ(tokenizer.token_of(10), std::nullopt);
}

TEST(Tokenizer, NormalizedAddedTokensMatchAfterNormalizing) {
  const std::string added = R"({"normalizer": {"type": "Lowercase"}, "added_tokens": [
    {"id": 6, "content": "BA", "special": false, "normalized": true}, {"id": 7, "content": "CA", "normalized": false}]})";
  EXPECT_EQ(tiny(added).encode("bA"), (Ids{6}));
  EXPECT_EQ(tiny(added).encode("ca"), (Ids{3, 0}));
  EXPECT_EQ(tiny(added).encode("CA"), (Ids{7}));
}

TEST(Tokenizer, PlainTextTokensAreNeitherRecognisedNorMerged) {
  const std::string added =
      R"({"added_tokens": [{"id": 2, "content": "ab", "special": true, "normalized": false},
    {"id": 6, "content": "<x>", "special": true, "normalized": false}]})";
  const Tokenizer tokenizer = tiny(added);
  Encoder encoder(tokenizer, Ids{2});
  Ids ids;
  EXPECT_EQ(encoder.encode("abab<x>c", ids), 2);
  EXPECT_EQ(ids, (Ids{0, 1, 0, 1, 6, 3}));
  EXPECT_EQ(tokenizer.encode("abc"), (Ids{2, 3}));
}

TEST(Tokenizer, Normalizers) {
  const auto with = [](const std::string& normalizer) {
    return tiny(R"({"normalizer": )" + normalizer + "}");
  };
  EXPECT_EQ(with(R"({"type": "Prepend", "prepend": "c"})").encode("ab"), (Ids{3, 2}));
  EXPECT_EQ(with(R"({"type": "Prepend", "prepend": "c"})").encode(""), (Ids{}));
  EXPECT_EQ(with(R"({"type": "Replace", "pattern": {"String": "x"}, "content": "bc"})").encode("xax"),
            (Ids{5, 0, 5}));
  EXPECT_EQ(with(R"({"type": "Replace", "pattern": {"Regex": "x+"}, "content": "b"})").encode("xxax"),
            (Ids{1, 2}));
  EXPECT_EQ(with(R"({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]})")
                .encode("\xEF\xBC\xA1"
                        "B"),
            (Ids{2}));  // full-width A
}

TEST(Tokenizer, PostProcessorAndConfig) {
  const std::string json =
      tiny_json(R"({"post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"},
    {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "c", "type_id": 0}},
      {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "abc", "type_id": 0}}], "pair": [],
      "special_tokens": {"c": {"id": "c", "ids": [3], "tokens": ["c"]}, "abc": {"id": "abc", "ids": [4], "tokens": ["abc"]}}}]}})");
  const Tokenizer tokenizer = Tokenizer::from_json(
      json, R"({"bos_token": {"content": "c"}, "eos_token": "abc", "pad_token": null})", "t");
  EXPECT_EQ(tokenizer.with_special(Ids{0}), (Ids{3, 0, 4}));
  EXPECT_EQ(tokenizer.bos_id(), 3u);
  EXPECT_EQ(tokenizer.eos_id(), 4u);
  EXPECT_EQ(tokenizer.pad_id(), std::nullopt);
}

TEST(Tokenizer, AddsSpecialTokens) {
  const Tokenizer before = tiny();
  const Tokenizer after =
      before.with_added_tokens(std::vector<std::string>{"<BUY>", "bc", "<BUY>", "<SELL>"});
  EXPECT_EQ(after.vocab_size(), 8);
  EXPECT_EQ(after.encode("a<BUY>bc<SELL>"), (Ids{0, 6, 5, 7}));
  EXPECT_EQ(Tokenizer::from_json(after.json(), "", "again").hash(), after.hash());
  EXPECT_NE(after.hash(), before.hash());
  EXPECT_EQ(after.with_added_tokens(std::vector<std::string>{"<SELL>"}).hash(), after.hash());
}

TEST(Tokenizer, TheHashSeesContentNotLayout) {
  EXPECT_EQ(tiny().hash(), Tokenizer::from_json(Json::parse(tiny_json()).dump(2), "", "tiny.json").hash());
  EXPECT_NE(tiny().hash(), tiny(R"({"model": {"merges": ["a b", "b c", "ab c"]}})").hash());
}

std::string error_of(const std::string& json) {
  try {
    Tokenizer::from_json(json, "", "bad.json");
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Tokenizer, RefusesWhatItCannotRead) {
  EXPECT_THAT(error_of("{"), HasSubstr("bad.json: not valid JSON"));
  EXPECT_THAT(error_of("[]"), HasSubstr("expected an object, found a list"));
  EXPECT_THAT(error_of("{}"), HasSubstr("the key 'model' is missing"));
  EXPECT_THAT(error_of(std::string(100000, '[')), HasSubstr("bad.json"));
  EXPECT_THAT(error_of(tiny_json(R"({"model": {"type": "Unigram"}})")),
              HasSubstr("'Unigram' is not supported"));
  EXPECT_THAT(error_of(tiny_json(R"({"model": {"vocab": {"z": 0}}})")), HasSubstr("have the same id 0"));
  EXPECT_THAT(error_of(tiny_json(R"({"model": {"vocab": {"z": -1}}})")), HasSubstr("the id of 'z'"));
  EXPECT_THAT(error_of(tiny_json(R"({"model": {"vocab": {"z": 4000000000}}})")), HasSubstr("the id of 'z'"));
  EXPECT_THAT(error_of(tiny_json(R"({"model": {"vocab": {"z": 1.5}}})")), HasSubstr("the id of 'z'"));
  EXPECT_THAT(error_of(tiny_json(R"({"model": {"merges": ["a z"]}})")),
              HasSubstr("'z' is not in the vocabulary"));
  EXPECT_THAT(error_of(tiny_json(R"({"model": {"merges": ["a c"]}})")),
              HasSubstr("'ac' is not in the vocabulary"));
  EXPECT_THAT(error_of(tiny_json(R"({"model": {"merges": ["abc"]}})")), HasSubstr("one blank"));
  EXPECT_THAT(error_of(tiny_json(R"({"model": {"dropout": 0.1}})")), HasSubstr("'dropout' is not supported"));
  EXPECT_THAT(error_of(tiny_json(R"({"normalizer": {"type": "Precompiled"}})")),
              HasSubstr("'Precompiled' is not supported"));
  EXPECT_THAT(error_of(tiny_json(R"({"pre_tokenizer": {"type": "BertPreTokenizer"}})")),
              HasSubstr("pre_tokenizer 'BertPreTokenizer' is not supported"));
  EXPECT_THAT(
      error_of(tiny_json(
          R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"}})")),
      HasSubstr("is not understood"));
  EXPECT_THAT(error_of(tiny_json(R"({"decoder": {"type": "CTC"}})")),
              HasSubstr("decoder 'CTC' is not supported"));
  EXPECT_THAT(error_of(tiny_json(R"({"added_tokens": [{"id": 2, "content": "q"}]})")),
              HasSubstr("is that of 'ab'"));
  EXPECT_THAT(
      error_of(tiny_json(R"({"added_tokens": [{"id": 6, "content": "q"}, {"id": 6, "content": "r"}]})")),
      HasSubstr("stands there twice"));
  std::string nested = R"({"type": "NFC"})";
  for (int i = 0; i < 40; ++i) nested = R"({"type": "Sequence", "normalizers": [)" + nested + "]}";
  EXPECT_THAT(error_of(tiny_json(R"({"normalizer": )" + nested + "}")),
              HasSubstr("sequences within each other"));
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
  EXPECT_THROW(tiny().encode("a\xFF"), UserError);
  EXPECT_THROW(tiny().encode("\xED\xA0\x80"), UserError);
}

TEST(Tokenizer, MissingFiles) {
  const testing::TemporaryDirectory folder;
  EXPECT_THROW(Tokenizer::load(folder.path()), UserError);
  EXPECT_THROW(Tokenizer::load(folder.path() / "none.json"), UserError);
  testing::write_text(folder.path() / "tokenizer.json", tiny_json());
  testing::write_text(folder.path() / "tokenizer_config.json", R"({"eos_token": "c"})");
  EXPECT_EQ(Tokenizer::load(folder.path()).eos_id(), 3u);
  EXPECT_EQ(Tokenizer::load(folder.path() / "tokenizer.json").eos_id(), 3u);
}

/// Prints how fast loading and encoding are; asserts nothing about time.
TEST(Tokenizer, Speed) {
  const auto shared = testing::shared_dir();
  if (!shared) GTEST_SKIP() << "the shared folder is not here";
  // Processor time, so that other work on the machine does not count.
  const auto now = [] { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; };
  std::vector<std::string> texts;
  std::ifstream file(*shared / "data" / "gsm8k_train.jsonl");
  std::size_t bytes = 0;
  for (std::string line; std::getline(file, line);) {
    const Json record = Json::parse(line);
    for (const char* key : {"question", "answer"}) {
      texts.push_back(record[key].get<std::string>());
      bytes += texts.back().size();
    }
  }
  for (const std::string name : {"qwen3", "mistral_v3"}) {
    const double load = now();
    const Tokenizer tokenizer = Tokenizer::load(*shared / "tokenizers" / name);
    const double load_s = now() - load;
    Encoder encoder(tokenizer, Ids{0});
    std::vector<TokenId> ids;
    const double start = now();
    for (const std::string& text : texts) {
      ids.clear();
      encoder.encode(text, ids);
    }
    const double encode_s = now() - start;
    std::printf("%s: load %.3f s, encode %.1f MB/s\n", name.c_str(), load_s,
                static_cast<double>(bytes) / encode_s / 1e6);
  }
}

}  // namespace
}  // namespace verne
