#pragma once
// What a Tokenizer holds, and the parts that read it from JSON.
#include <optional>
#include <string>
#include <vector>

#include "verne/text/added_tokens.hpp"
#include "verne/text/bpe.hpp"
#include "verne/text/decoder.hpp"
#include "verne/text/normalizer.hpp"
#include "verne/text/pre_tokenizer.hpp"
#include "verne/text/tokenizer.hpp"

namespace verne {

struct Tokenizer::Tables : std::enable_shared_from_this<Tokenizer::Tables> {
  std::string json, config_json, origin, hash;
  BpeModel model;
  std::vector<AddedToken> added;  ///< by id
  Vocabulary added_vocabulary;    ///< contents of `added`
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Decoder decoder;
  std::vector<TokenId> prefix, suffix;  ///< the post-processor's
  std::optional<TokenId> bos, eos, pad;
  AddedTokenSet raw_set, normalized_set;  ///< all added tokens, for encoders without plain-text tokens
  /// Pieces may be cut before every replacement character that follows another character: no merge reaches
  /// over one.
  std::optional<std::string> safe_cut;

  TokenId find(std::string_view token) const;
  /// Of an id in `added_vocabulary`.
  std::string_view added_spelling(TokenId id) const;
};

/// The two sets of `tables.added` without `plain_text_tokens`.
void make_token_sets(const Tokenizer::Tables& tables, std::span<const TokenId> plain_text_tokens,
                     AddedTokenSet& raw, AddedTokenSet& normalized);

}  // namespace verne
