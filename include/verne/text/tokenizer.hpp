#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace verne {

using TokenId = std::uint32_t;

/// Where a text stands in what the tokenizer sees. SentencePiece-style tokenizers put their leading blank
/// (U+2581) only before a text that starts an input.
enum class TextPosition { start, continuation };

/// A tokenizer of the form Hugging Face tokenizers writes (tokenizer.json): byte-level BPE or
/// SentencePiece-style BPE with byte fallback. Immutable and cheap to copy (copies share their tables); every
/// member may be called from any thread.
///
/// Files are not trusted: whatever cannot be read or is not supported is one UserError that names the file
/// and the part.
class Tokenizer {
 public:
  /// `path` is a tokenizer.json or a folder with one; tokenizer_config.json beside it is read where it
  /// exists.
  static Tokenizer load(const std::filesystem::path& path);
  /// The same from memory. `config_json` may be empty; `origin` names the source in errors.
  static Tokenizer from_json(std::string json, std::string config_json, const std::string& origin);

  /// Appends the ids of `text` (valid UTF-8, else UserError): added tokens recognised, no post-processor.
  /// Builds an Encoder; callers with many texts keep one of their own.
  void encode(std::string_view text, std::vector<TokenId>& out) const;
  std::vector<TokenId> encode(std::string_view text) const;

  /// What the post-processor puts before a single sequence (BOS); often empty.
  std::span<const TokenId> prefix_ids() const;
  std::vector<TokenId> with_special(std::span<const TokenId> ids) const;

  /// The text of `ids`, special tokens kept; ids without a token are skipped. Always valid UTF-8 (U+FFFD
  /// where bytes do not make a character).
  std::string decode(std::span<const TokenId> ids) const;

  std::optional<TokenId> id_of(std::string_view token) const;
  /// The token as the vocabulary spells it (byte-level tokens in their byte alphabet), where the id has one.
  std::optional<std::string_view> token_of(TokenId id) const;
  /// Largest id + 1.
  std::int64_t vocab_size() const;
  bool is_added(TokenId id) const;

  /// From tokenizer_config.json (a string or an AddedToken object), where it names a token that exists.
  std::optional<TokenId> bos_id() const;
  std::optional<TokenId> eos_id() const;
  std::optional<TokenId> pad_id() const;

  /// The texts this tokenizer was made from; `config_json` may be empty. They travel inside shards and
  /// checkpoints.
  const std::string& json() const;
  const std::string& config_json() const;
  /// 16 hex digits: XXH3 of vocabulary, merges, added tokens and components, the same however the JSON is
  /// laid out.
  const std::string& hash() const;

  /// A tokenizer that also has these special tokens, at the next free ids in the given order; those that
  /// exist as added tokens are left as they are. `json()` of the result has them (special, not normalized).
  Tokenizer with_added_tokens(std::span<const std::string> tokens) const;

  struct Tables;
  const Tables& tables() const { return *tables_; }

 private:
  explicit Tokenizer(std::shared_ptr<const Tables> tables) : tables_(std::move(tables)) {}
  std::shared_ptr<const Tables> tables_;
};

/// Encodes many texts on one thread: keeps a bounded cache of words and its scratch. Not thread-safe; make
/// one a thread.
class Encoder {
 public:
  /// Tokens in `plain_text_tokens` are not recognised: spelled in a text they stay plain text, and no merge
  /// produces them.
  explicit Encoder(const Tokenizer& tokenizer, std::span<const TokenId> plain_text_tokens = {});
  ~Encoder();
  Encoder(Encoder&&) noexcept;
  Encoder& operator=(Encoder&&) noexcept;

  /// Appends the ids of `text` and returns how many spellings of plain-text tokens were met. UserError where
  /// `text` is not valid UTF-8.
  std::int64_t encode(std::string_view text, std::vector<TokenId>& out,
                      TextPosition position = TextPosition::start);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace verne
