#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "verne/io/shard.hpp"
#include "verne/text/tokenizer.hpp"

namespace verne {

/// What becomes of documents longer than the sequence length.
enum class Overlong {
  error,    ///< UserError that counts them and says what to choose
  drop,     ///< they are left out
  truncate  ///< the prompt is cut from its start, then the answer from its end
};

struct DatasetOptions {
  std::int64_t seq_length = 0;
  Overlong overlong = Overlong::error;
  std::optional<std::string> tokenizer_hash;  ///< shards made by another tokenizer are refused
  std::optional<std::int64_t> vocab_size;     ///< ids from here on are refused where they are read
};

struct DatasetCounts {
  std::int64_t documents = 0;  ///< in the shards
  std::int64_t kept = 0;
  std::int64_t overlong = 0;               ///< longer than the sequence length: truncated or dropped
  std::int64_t without_trained_token = 0;  ///< dropped: none left that counts as a target
  std::int64_t longest = 0;                ///< tokens of the longest document in the shards
  std::int64_t tokens = 0;                 ///< of the kept documents, as cut
  std::int64_t counted_tokens = 0;         ///< of them, those that count as targets
};

/// The documents of token shards, cut to the sequence length; documents without a trained token are dropped.
/// Lengths and counts are in memory, tokens are read when asked for. Every document has 1 to seq_length
/// tokens.
class TokenDataset {
 public:
  /// Documents of the first shard come first. UserErrors name the shard.
  TokenDataset(std::span<const std::filesystem::path> shards, const DatasetOptions& options);

  std::int64_t size() const { return static_cast<std::int64_t>(lengths_.size()); }
  const DatasetCounts& counts() const { return counts_; }
  /// One line for a person: what was kept, cut and dropped.
  std::string summary() const;

  std::span<const std::int32_t> lengths() const { return lengths_; }
  /// Tokens of the document that count as targets; its first never does.
  std::int64_t counted_tokens(std::int64_t document) const;
  /// Both spans are as long as the document; loss_mask[0] is 0. UserError for an id outside the vocabulary.
  void read(std::int64_t document, std::span<TokenId> tokens, std::span<std::uint8_t> loss_mask) const;
  std::string metadata(std::int64_t document) const;

  std::span<const ShardReader> shards() const { return shards_; }

 private:
  struct Entry {
    std::int64_t first_token = 0;  ///< in its shard, after cutting
    std::int64_t document = 0;     ///< in its shard
    std::int32_t counted = 0;
    std::int32_t shard = 0;
  };
  void add_shard(std::int32_t shard);
  void add_document(std::int32_t shard, std::int64_t document, std::span<const std::uint8_t> loss_mask);
  const Entry& entry(std::int64_t document) const;

  DatasetOptions options_;
  std::vector<ShardReader> shards_;
  std::vector<Entry> entries_;
  std::vector<std::int32_t> lengths_;
  DatasetCounts counts_;
};

/// What `truncate` keeps of a document: tokens [first, first + length). The prompt is what stands before the
/// first trained token; where that is token 1 or 0 there is none, since token 0 never counts.
struct KeptTokens {
  std::int64_t first = 0, length = 0;
};
KeptTokens truncate_document(std::span<const std::uint8_t> loss_mask, std::int64_t seq_length);

}  // namespace verne
