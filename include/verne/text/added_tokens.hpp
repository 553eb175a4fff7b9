#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "verne/text/tokenizer.hpp"

namespace verne {

/// Finds the leftmost, and of those the longest, of several byte strings: a trie.
class StringMatcher {
 public:
  /// `value` is given back for matches of `text` (not empty); the first of equal texts counts.
  void add(std::string_view text, std::uint32_t value);
  bool empty() const { return nodes_.size() <= 1; }

  struct Match {
    std::size_t begin, end;
    std::uint32_t value;
  };
  std::optional<Match> find(std::string_view text, std::size_t from) const;

 private:
  struct Node {
    std::uint32_t first_child = 0, next_sibling = 0, value = kNoValue;
    unsigned char byte = 0;
  };
  static constexpr std::uint32_t kNoValue = 0xFFFFFFFFu;
  std::uint32_t child(std::uint32_t node, unsigned char byte) const;

  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::array<std::uint32_t, 256> roots_{};  ///< node of a first byte, 0 where none
};

/// An entry of added_tokens: a token that is cut out of the text before anything is split.
struct AddedToken {
  TokenId id = 0;
  std::string content;
  std::string
      spelling;  ///< what is searched for, and what it decodes to: the content, normalized where `normalized`
  bool single_word = false;  ///< not inside a word
  bool lstrip = false;       ///< takes white space before it
  bool rstrip = false;       ///< takes white space after it
  bool normalized = true;    ///< searched for in the normalized text, else in the text as it came
  bool special = false;
};

/// A stretch of text, or the added token that stands there.
struct TextPart {
  std::size_t begin, end;
  std::optional<TokenId> token;
};

/// A set of added tokens that are searched for together.
class AddedTokenSet {
 public:
  void add(const AddedToken& token);
  bool empty() const { return matcher_.empty(); }
  /// Cuts `text` at its added tokens; parts without text are left out. Appends to `parts`.
  void cut(std::string_view text, std::vector<TextPart>& parts) const;

 private:
  std::vector<AddedToken> tokens_;
  StringMatcher matcher_;
};

}  // namespace verne
