#include "verne/text/pre_tokenizer.hpp"

namespace verne {
namespace {

using Pieces = PreTokenizer::Pieces;
using Piece = PreTokenizer::Piece;

bool is_kind(CharKind kind, std::uint32_t code_point) {
  const UnicodeTables& tables = UnicodeTables::get();
  switch (kind) {
    case CharKind::digit:
      return tables.is_number(code_point);
    case CharKind::white_space:
      return tables.is_space(code_point);
    case CharKind::punctuation:
      break;
  }
  return tables.is_punctuation(code_point);
}

void find_chars(CharKind kind, std::string_view text, std::vector<MatchedPart>& parts) {
  std::size_t done = 0;
  for (std::size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    if (is_kind(kind, c.code_point)) {
      if (done < i) parts.push_back({done, i, false});
      parts.push_back({i, i + c.length, true});
      done = i + c.length;
    }
    i += c.length;
  }
  if (done < text.size()) parts.push_back({done, text.size(), false});
}

/// One step over all pieces.
struct ApplyStep {
  Pieces& pieces;
  std::size_t index;

  /// Replaces `piece` by the parts in `pieces.parts`, which are relative to it.
  void add_parts(const Piece& piece) const {
    for (const MatchedPart& part : pieces.parts)
      pieces.next_pieces.push_back({piece.begin + part.begin, piece.begin + part.end,
                                    part.begin == 0 ? piece.position : TextPosition::continuation});
  }
  void finish_pieces() const {
    pieces.pieces.swap(pieces.next_pieces);
    pieces.next_pieces.clear();
  }

  void operator()(const SplitOnPattern& step) const {
    for (const Piece& piece : pieces.pieces) {
      pieces.parts.clear();
      find_parts(step.pattern, pieces.matchers[index], pieces.at(piece), pieces.parts);
      if (step.separators == SplitOnPattern::Sense::gaps)
        for (MatchedPart& part : pieces.parts) part.matches = !part.matches;
      apply_behavior(step.behavior, pieces.parts);
      add_parts(piece);
    }
    finish_pieces();
  }
  void operator()(const SplitOnChars& step) const {
    for (const Piece& piece : pieces.pieces) {
      pieces.parts.clear();
      find_chars(step.kind, pieces.at(piece), pieces.parts);
      apply_behavior(step.behavior, pieces.parts);
      add_parts(piece);
    }
    finish_pieces();
  }
  void operator()(const SplitWords& step) const {
    const UnicodeTables& tables = UnicodeTables::get();
    for (const Piece& piece : pieces.pieces) {
      const std::string_view text = pieces.at(piece);
      for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = next_word(step.pattern, tables, text, begin);
        pieces.next_pieces.push_back({piece.begin + begin, piece.begin + end,
                                      begin == 0 ? piece.position : TextPosition::continuation});
        begin = end;
      }
    }
    finish_pieces();
  }
  void operator()(const PrefixSpace&) const {
    rewrite([](std::string_view text, TextPosition, std::string& out) {
      if (!text.starts_with(' ')) out.push_back(' ');
      out.append(text);
    });
  }
  void operator()(const Metaspace& step) const {
    rewrite([&](std::string_view text, TextPosition position, std::string& out) {
      const bool wanted = step.prepend == Metaspace::Prepend::always ||
                          (step.prepend == Metaspace::Prepend::first && position == TextPosition::start);
      if (wanted && !text.starts_with(' ') && !text.starts_with(step.replacement))
        out.append(step.replacement);
      std::size_t done = 0;
      for (std::size_t at = text.find(' '); at != std::string_view::npos; at = text.find(' ', done)) {
        out.append(text.substr(done, at - done)).append(step.replacement);
        done = at + 1;
      }
      out.append(text.substr(done));
    });
    if (step.split == Metaspace::Split::yes) {
      (*this)(
          SplitOnPattern{step.replacement, SplitBehavior::merged_with_next, SplitOnPattern::Sense::matches});
    }
  }

  template <class Write>
  void rewrite(const Write& write) const {
    pieces.next_text.clear();
    for (Piece& piece : pieces.pieces) {
      const std::size_t begin = pieces.next_text.size();
      write(pieces.at(piece), piece.position, pieces.next_text);
      piece.begin = begin;
      piece.end = pieces.next_text.size();
    }
    pieces.text.swap(pieces.next_text);
  }
};

}  // namespace

std::optional<WordPattern> PreTokenizer::only_words() const {
  if (steps_.size() != 1) return std::nullopt;
  const auto* words = std::get_if<SplitWords>(steps_.data());
  return words ? std::optional(words->pattern) : std::nullopt;
}

std::optional<std::string_view> PreTokenizer::final_metaspace() const {
  if (steps_.empty()) return std::nullopt;
  const auto* metaspace = std::get_if<Metaspace>(&steps_.back());
  return metaspace ? std::optional<std::string_view>(metaspace->replacement) : std::nullopt;
}

void PreTokenizer::split(std::string_view text, TextPosition position, Pieces& pieces) const {
  pieces.text.assign(text);
  pieces.pieces.clear();
  if (text.empty()) return;
  pieces.pieces.push_back({0, text.size(), position});
  pieces.matchers.resize(steps_.size());
  for (std::size_t i = 0; i < steps_.size(); ++i) std::visit(ApplyStep{pieces, i}, steps_[i]);
}

}  // namespace verne
