#include "verne/data/dataset.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.hpp"
#include "testing.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Document read(const TokenDataset& dataset, std::int64_t document) {
  const auto length = static_cast<std::size_t>(dataset.lengths()[static_cast<std::size_t>(document)]);
  Document result{std::vector<TokenId>(length), std::vector<std::uint8_t>(length)};
  dataset.read(document, result.tokens, result.loss_mask);
  return result;
}

class Dataset : public ::testing::Test {
 protected:
  std::filesystem::path shard(const std::vector<Document>& documents, const std::string& hash = "") {
    const std::filesystem::path path = folder_.path() / ("shard" + std::to_string(count_++) + ".h5");
    testing::write_shard(path, documents, {.tokenizer_hash = hash, .chat_template = "none"});
    return path;
  }
  testing::TemporaryDirectory folder_;
  int count_ = 0;
};

TEST(TruncateDocument, PromptFromItsStartThenAnswerFromItsEnd) {
  const std::vector<std::uint8_t> mask{0, 0, 0, 1, 1, 1, 0};
  const auto kept = [&](std::int64_t seq_length) {
    const KeptTokens result = truncate_document(mask, seq_length);
    return std::pair(result.first, result.length);
  };
  EXPECT_EQ(kept(9), std::pair(std::int64_t{0}, std::int64_t{7}));
  EXPECT_EQ(kept(6), std::pair(std::int64_t{1}, std::int64_t{6}));
  EXPECT_EQ(kept(4), std::pair(std::int64_t{3}, std::int64_t{4}));
  EXPECT_EQ(kept(2), std::pair(std::int64_t{3}, std::int64_t{2}));
}

TEST(TruncateDocument, PlainTextIsCutFromItsEnd) {
  const std::vector<std::uint8_t> mask{0, 1, 1, 1, 1};
  EXPECT_EQ(truncate_document(mask, 3).first, 0);
  EXPECT_EQ(truncate_document(mask, 3).length, 3);
}

TEST_F(Dataset, DocumentsComeBackInOrder) {
  const std::vector<std::filesystem::path> shards{shard({{{1, 2, 3}, {0, 0, 1}}}), shard({{{4, 5}, {0, 1}}})};
  const TokenDataset dataset(shards, {.seq_length = 4});
  ASSERT_EQ(dataset.size(), 2);
  EXPECT_THAT(dataset.lengths(), ElementsAre(3, 2));
  EXPECT_THAT(read(dataset, 0).tokens, ElementsAre(1, 2, 3));
  EXPECT_THAT(read(dataset, 1).tokens, ElementsAre(4, 5));
  EXPECT_THAT(read(dataset, 1).loss_mask, ElementsAre(0, 1));
  EXPECT_EQ(dataset.counted_tokens(0), 1);
  EXPECT_EQ(dataset.counts().tokens, 5);
  EXPECT_EQ(dataset.counts().counted_tokens, 2);
  EXPECT_EQ(dataset.metadata(0), "{\"n\":0}");
}

TEST_F(Dataset, DocumentsWithoutATrainedTokenAreDroppedAndCounted) {
  // The second has a one at token 0 alone, which never counts.
  const auto path = shard({{{1, 2}, {0, 0}}, {{3, 4}, {1, 0}}, {{5, 6}, {1, 1}}});
  const TokenDataset dataset = testing::open_dataset(path, 4);
  ASSERT_EQ(dataset.size(), 1);
  EXPECT_THAT(read(dataset, 0).tokens, ElementsAre(5, 6));
  EXPECT_THAT(read(dataset, 0).loss_mask, ElementsAre(0, 1));
  EXPECT_EQ(dataset.counts().without_trained_token, 2);
  EXPECT_THAT(dataset.summary(), HasSubstr("2 without a trained token were dropped"));
}

TEST_F(Dataset, OverlongDocuments) {
  const auto path = shard({{{1, 2, 3, 4, 5, 6}, {0, 0, 0, 1, 1, 1}}, {{7, 8}, {0, 1}}});
  try {
    testing::open_dataset(path, 4);
    FAIL() << "accepted";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("1 of 2 documents are longer than data.seq_length=4 (the longest has 6 tokens)"));
    EXPECT_THAT(error.what(), HasSubstr("data.overlong=truncate"));
  }
  const TokenDataset dropped = testing::open_dataset(path, 4, Overlong::drop);
  ASSERT_EQ(dropped.size(), 1);
  EXPECT_EQ(dropped.counts().overlong, 1);
  EXPECT_THAT(read(dropped, 0).tokens, ElementsAre(7, 8));
  const TokenDataset cut = testing::open_dataset(path, 4, Overlong::truncate);
  ASSERT_EQ(cut.size(), 2);
  EXPECT_THAT(read(cut, 0).tokens, ElementsAre(3, 4, 5, 6));
  EXPECT_THAT(read(cut, 0).loss_mask, ElementsAre(0, 1, 1, 1));
  const TokenDataset answer = testing::open_dataset(path, 2, Overlong::truncate);
  EXPECT_THAT(read(answer, 0).tokens, ElementsAre(4, 5));
  EXPECT_THAT(read(answer, 0).loss_mask, ElementsAre(0, 1));
  EXPECT_EQ(answer.counted_tokens(0), 1);
}

TEST_F(Dataset, ForeignTokensAndTokenizersAreRefused) {
  const std::vector<std::filesystem::path> shards{shard({{{1, 9}, {0, 1}}}, "aaaa"),
                                                  shard({{{1, 2}, {0, 1}}}, "bbbb")};
  EXPECT_THROW(TokenDataset(shards, {.seq_length = 4}), UserError);
  const std::span<const std::filesystem::path> first(shards.data(), 1);
  const TokenDataset dataset(first, {.seq_length = 4, .vocab_size = 9});
  EXPECT_THROW(read(dataset, 0), UserError);
  EXPECT_THROW(TokenDataset(first, {.seq_length = 4, .tokenizer_hash = "cccc"}), UserError);
}

}  // namespace
}  // namespace verne
