#include <algorithm>

#include "tables.hpp"
#include "verne/base/error.hpp"
#include "verne/text/unicode.hpp"
#include "verne/text/word_cache.hpp"

namespace verne {

struct Encoder::State {
  std::shared_ptr<const Tokenizer::Tables> tables;
  const UnicodeTables* unicode = nullptr;
  std::vector<TokenId> plain_text_tokens;
  StringMatcher plain_text;               ///< spellings that are counted
  AddedTokenSet own_raw, own_normalized;  ///< where some tokens stay plain text
  const AddedTokenSet* raw = nullptr;
  const AddedTokenSet* normalized = nullptr;
  std::optional<WordPattern> words;
  WordCache cache;
  BpeModel::Scratch bpe;
  PreTokenizer::Pieces pieces;
  std::vector<TextPart> raw_parts, normalized_parts;
  std::string buffer;

  std::int64_t count_spellings(std::string_view text) const {
    std::int64_t count = 0;
    for (auto match = plain_text.find(text, 0); match; match = plain_text.find(text, match->end)) ++count;
    return count;
  }

  /// A word of `text`, through the cache.
  void encode_word(std::string_view text, std::size_t begin, std::size_t end, std::vector<TokenId>& out) {
    const std::string_view word = text.substr(begin, end - begin);
    if (word.size() > WordCache::kMaxWordBytes) {
      tables->model.encode(word, plain_text_tokens, bpe, out);
      return;
    }
    const auto key = WordCache::make_key(word, text.size() - begin);
    if (cache.append(key, out)) return;
    const std::size_t before = out.size();
    tables->model.encode(word, plain_text_tokens, bpe, out);
    cache.insert(key, std::span(out).subspan(before));
  }

  /// A piece of the pre-tokenizer, cut further where no merge can reach over.
  void encode_piece(std::string_view text, std::size_t begin, std::size_t end, std::vector<TokenId>& out) {
    if (!tables->safe_cut) return encode_word(text, begin, end, out);
    const std::string& mark = *tables->safe_cut;
    std::size_t word = begin;
    for (std::size_t at = text.find(mark, begin); at < end; at = text.find(mark, at)) {
      if (at > word) {
        encode_word(text, word, at, out);
        word = at;
      }
      while (text.compare(at, mark.size(), mark) == 0) at += mark.size();
    }
    if (word < end) encode_word(text, word, std::min(end, text.size()), out);
  }

  /// A stretch of normalized text without added tokens.
  void encode_stretch(std::string_view text, TextPosition position, std::vector<TokenId>& out) {
    if (words) {
      for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = next_word(*words, *unicode, text, begin);
        encode_word(text, begin, end, out);
        begin = end;
      }
      return;
    }
    tables->pre_tokenizer.split(text, position, pieces);
    for (const PreTokenizer::Piece& piece : pieces.pieces)
      encode_piece(pieces.text, piece.begin, piece.end, out);
  }

  /// A stretch of text as it came, without the added tokens that are searched for there.
  void encode_raw(std::string_view text, TextPosition position, std::vector<TokenId>& out) {
    const std::string_view clean = tables->normalizer.apply(text, buffer);
    if (normalized->empty()) return encode_stretch(clean, position, out);
    normalized_parts.clear();
    normalized->cut(clean, normalized_parts);
    for (const TextPart& part : normalized_parts) {
      if (part.token)
        out.push_back(*part.token);
      else
        encode_stretch(clean.substr(part.begin, part.end - part.begin),
                       part.begin == 0 ? position : TextPosition::continuation, out);
    }
  }
};

Encoder::Encoder(const Tokenizer& tokenizer, std::span<const TokenId> plain_text_tokens)
    : state_(std::make_unique<State>()) {
  const auto& tables = tokenizer.tables();
  state_->tables = tables.shared_from_this();
  state_->unicode = &UnicodeTables::get();
  state_->plain_text_tokens.assign(plain_text_tokens.begin(), plain_text_tokens.end());
  state_->words = tables.pre_tokenizer.only_words();
  if (plain_text_tokens.empty()) {
    state_->raw = &tables.raw_set;
    state_->normalized = &tables.normalized_set;
    return;
  }
  make_token_sets(tables, plain_text_tokens, state_->own_raw, state_->own_normalized);
  state_->raw = &state_->own_raw;
  state_->normalized = &state_->own_normalized;
  for (const TokenId id : plain_text_tokens) {
    // An end token from a model's config may have no spelling.
    const auto spelling = tokenizer.token_of(id);
    if (spelling) state_->plain_text.add(*spelling, id);
  }
}
Encoder::~Encoder() = default;
Encoder::Encoder(Encoder&& other) noexcept = default;
Encoder& Encoder::operator=(Encoder&& other) noexcept = default;

std::int64_t Encoder::encode(std::string_view text, std::vector<TokenId>& out, TextPosition position) {
  State& state = *state_;
  require_user(is_ascii(text) || is_valid_utf8(text), "a text of {} bytes is not valid UTF-8", text.size());
  const std::int64_t spellings = state.plain_text.empty() ? 0 : state.count_spellings(text);
  if (state.raw->empty()) {
    if (!text.empty()) state.encode_raw(text, position, out);
    return spellings;
  }
  state.raw_parts.clear();
  state.raw->cut(text, state.raw_parts);
  for (const TextPart& part : state.raw_parts) {
    if (part.token)
      out.push_back(*part.token);
    else
      state.encode_raw(text.substr(part.begin, part.end - part.begin),
                       part.begin == 0 ? position : TextPosition::continuation, out);
  }
  return spellings;
}

}  // namespace verne
