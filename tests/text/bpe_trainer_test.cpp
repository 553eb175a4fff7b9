#include "verne/text/bpe_trainer.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "verne/base/error.hpp"
#include "verne/text/tokenizer.hpp"

namespace verne {
namespace {

const std::vector<std::string> kTexts{
    "low low low low low lower lower newest newest newest newest newest newest widest widest",
    "caf\xC3\xA9 cafe\xCC\x81 12 12 12"};

std::vector<std::string> merges_of(const std::string& json) {
  std::vector<std::string> merges;
  const auto root = nlohmann::json::parse(json);
  for (const auto& rule : root["model"]["merges"])
    merges.push_back(rule[0].get<std::string>() + " " + rule[1].get<std::string>());
  return merges;
}

TEST(BpeTrainer, MergesTheMostFrequentPairFirst) {
  const std::string json = train_byte_level_bpe(kTexts, {.vocab_size = 262, .special_tokens = {"<BUY>"}});
  // Counts: "e s" 8 (newest 6, widest 2), "w e" 8 (lower 2, newest 6), "s t" 8; equal counts go by id: e < s
  // < w. Then "es t" 8, before "l o" 7 and " l" 6.
  const auto merges = merges_of(json);
  ASSERT_EQ(merges.size(), 5u);
  EXPECT_EQ(merges[0], "e s");
  EXPECT_EQ(merges[1], "es t");
  EXPECT_EQ(merges[2], "l o");
  EXPECT_EQ(merges[3], "lo w");
}

TEST(BpeTrainer, MakesATokenizerThatReadsBackEveryText) {
  const std::string json =
      train_byte_level_bpe(kTexts, {.vocab_size = 300, .special_tokens = {"<BUY>", "<SELL>"}});
  EXPECT_EQ(json, train_byte_level_bpe(kTexts, {.vocab_size = 300, .special_tokens = {"<BUY>", "<SELL>"}}));
  const Tokenizer tokenizer = Tokenizer::from_json(json, "", "trained");
  const std::string text = "lowest <BUY> \xF0\x9F\x99\x82\n\xE4\xB8\xAD <SELL>";
  const auto ids = tokenizer.encode(text);
  EXPECT_EQ(tokenizer.decode(ids), text);
  EXPECT_EQ(tokenizer.id_of("<SELL>"), static_cast<TokenId>(tokenizer.vocab_size() - 1));
  EXPECT_EQ(ids.back(), tokenizer.id_of("<SELL>"));
  // The text normalizes to one spelling of the accent, and its words are single tokens.
  EXPECT_EQ(tokenizer.encode(" newest").size(), 1u);
  EXPECT_EQ(tokenizer.encode("cafe\xCC\x81"), tokenizer.encode("caf\xC3\xA9"));
}

TEST(BpeTrainer, StopsWhereTheTextEndsAndRefusesTooSmallAVocabulary) {
  const Tokenizer tokenizer = Tokenizer::from_json(
      train_byte_level_bpe(std::vector<std::string>{"ab ab"}, {.vocab_size = 2000}), "", "trained");
  EXPECT_EQ(tokenizer.vocab_size(), 257);
  EXPECT_THROW(train_byte_level_bpe(kTexts, {.vocab_size = 256, .special_tokens = {"<x>"}}), UserError);
}

}  // namespace
}  // namespace verne
