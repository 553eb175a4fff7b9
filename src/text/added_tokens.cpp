#include "verne/text/added_tokens.hpp"

#include <algorithm>

#include "verne/text/unicode.hpp"

namespace verne {

std::uint32_t StringMatcher::child(std::uint32_t node, unsigned char byte) const {
  std::uint32_t next = nodes_[node].first_child;
  while (next != 0 && nodes_[next].byte != byte) next = nodes_[next].next_sibling;
  return next;
}

void StringMatcher::add(std::string_view text, std::uint32_t value) {
  std::uint32_t node = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    std::uint32_t next = child(node, byte);
    if (next == 0) {
      next = static_cast<std::uint32_t>(nodes_.size());
      Node made;
      made.byte = byte;
      made.next_sibling = nodes_[node].first_child;
      nodes_.push_back(made);
      nodes_[node].first_child = next;
      if (i == 0) roots_[byte] = next;
    }
    node = next;
  }
  if (node != 0 && nodes_[node].value == kNoValue) nodes_[node].value = value;
}

std::optional<StringMatcher::Match> StringMatcher::find(std::string_view text, std::size_t from) const {
  for (std::size_t begin = from; begin < text.size(); ++begin) {
    std::uint32_t node = roots_[static_cast<unsigned char>(text[begin])];
    if (node == 0) continue;
    std::optional<Match> longest;
    for (std::size_t i = begin + 1;; ++i) {
      if (nodes_[node].value != kNoValue) longest = Match{begin, i, nodes_[node].value};
      if (i >= text.size()) break;
      node = child(node, static_cast<unsigned char>(text[i]));
      if (node == 0) break;
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

void AddedTokenSet::add(const AddedToken& token) {
  if (token.spelling.empty()) return;
  matcher_.add(token.spelling, static_cast<std::uint32_t>(tokens_.size()));
  tokens_.push_back(token);
}

void AddedTokenSet::cut(std::string_view text, std::vector<TextPart>& parts) const {
  const UnicodeTables& tables = UnicodeTables::get();
  const auto word_before = [&](std::size_t i) {
    return i > 0 && tables.is_word(decode_char_before(text, i).code_point);
  };
  const auto word_after = [&](std::size_t i) {
    return i < text.size() && tables.is_word(decode_char(text, i).code_point);
  };
  std::size_t done = 0;
  for (auto match = matcher_.find(text, 0); match; match = matcher_.find(text, match->end)) {
    const AddedToken& token = tokens_[match->value];
    std::size_t begin = match->begin, end = match->end;
    if (token.single_word && (word_before(begin) || word_after(end))) continue;
    if (token.lstrip) {
      while (begin > done) {
        const DecodedChar c = decode_char_before(text, begin);
        if (!tables.is_space(c.code_point)) break;
        begin -= c.length;
      }
      begin = std::max(begin, done);
    }
    if (token.rstrip) {
      while (end < text.size()) {
        const DecodedChar c = decode_char(text, end);
        if (!tables.is_space(c.code_point)) break;
        end += c.length;
      }
    }
    if (done < begin) parts.push_back({done, begin, std::nullopt});
    parts.push_back({begin, end, token.id});
    done = end;
  }
  if (done < text.size()) parts.push_back({done, text.size(), std::nullopt});
}

}  // namespace verne
