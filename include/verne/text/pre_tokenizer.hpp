#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "verne/text/pattern.hpp"
#include "verne/text/tokenizer.hpp"
#include "verne/text/word_scanner.hpp"

namespace verne {

struct SplitOnPattern {
  Pattern pattern;
  SplitBehavior behavior;
  enum class Sense { matches, gaps } separators = Sense::matches;
};
enum class CharKind { digit, white_space, punctuation };
struct SplitOnChars {
  CharKind kind;
  SplitBehavior behavior;
};
struct Metaspace {
  std::string replacement;  ///< one character
  enum class Prepend { always, first, never } prepend = Prepend::always;
  enum class Split { no, yes } split = Split::yes;
};
/// The blank that byte-level tokenizers may put before each piece.
struct PrefixSpace {};
/// Words by a pattern that has a scanner of its own.
struct SplitWords {
  WordPattern pattern;
};
using PreTokenizerStep = std::variant<SplitOnPattern, SplitOnChars, Metaspace, PrefixSpace, SplitWords>;

/// Cuts normalized text into the pieces that the model merges within.
class PreTokenizer {
 public:
  struct Piece {
    std::size_t begin, end;
    TextPosition position;
  };
  /// Pieces of `text`, and scratch for one thread.
  struct Pieces {
    std::string text;
    std::vector<Piece> pieces;
    std::vector<std::optional<Regex::Matcher>> matchers;
    std::vector<MatchedPart> parts;
    std::vector<Piece> next_pieces;
    std::string next_text;
    std::string_view at(const Piece& piece) const {
      return std::string_view(text).substr(piece.begin, piece.end - piece.begin);
    }
  };

  void add(PreTokenizerStep step) { steps_.push_back(std::move(step)); }
  bool empty() const { return steps_.empty(); }
  /// The scanner that does the whole of it, where one does.
  std::optional<WordPattern> only_words() const;
  /// The replacement of a Metaspace that is the last step, where it is.
  std::optional<std::string_view> final_metaspace() const;
  void split(std::string_view text, TextPosition position, Pieces& pieces) const;

 private:
  std::vector<PreTokenizerStep> steps_;
};

}  // namespace verne
