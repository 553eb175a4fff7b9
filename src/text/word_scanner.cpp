#include "verne/text/word_scanner.hpp"

#include <array>

namespace verne {
namespace {

constexpr std::array<std::string_view, 3> kRegex{
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};

constexpr std::array<CharClass, 128> make_ascii_classes() {
  std::array<CharClass, 128> classes{};
  for (std::size_t c = 0; c < 128; ++c) {
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
      classes[c] = CharClass::letter;
    else if (c >= '0' && c <= '9')
      classes[c] = CharClass::number;
    else if (c == '\r' || c == '\n')
      classes[c] = CharClass::newline;
    else if (c == ' ' || (c >= 9 && c <= 12))
      classes[c] = CharClass::space;
    else
      classes[c] = CharClass::other;
  }
  return classes;
}
constexpr auto kAsciiClasses = make_ascii_classes();

/// Class and length of the character at a position.
struct Next {
  CharClass kind;
  std::size_t length;
};

class Scanner {
 public:
  Scanner(const UnicodeTables& tables, std::string_view text) : tables_(tables), text_(text) {}

  bool at_end(std::size_t i) const { return i >= text_.size(); }
  Next look(std::size_t i) const {
    const auto byte = static_cast<unsigned char>(text_[i]);
    if (byte < 0x80) return {kAsciiClasses[byte], 1};
    const DecodedChar c = decode_char(text_, i);
    return {tables_.char_class(c.code_point), c.length};
  }
  bool is(std::size_t i, CharClass kind) const { return !at_end(i) && look(i).kind == kind; }
  std::size_t skip(std::size_t i, CharClass kind) const {
    while (!at_end(i)) {
      const Next next = look(i);
      if (next.kind != kind) break;
      i += next.length;
    }
    return i;
  }
  std::size_t skip_newlines(std::size_t i) const {
    while (!at_end(i) && (text_[i] == '\r' || text_[i] == '\n')) ++i;
    return i;
  }

  /// End of 's 't 're 've 'm 'll 'd at `i` (an apostrophe), or `i`. The long s (U+017F) is an s when case is
  /// ignored.
  template <bool ignore_case>
  std::size_t contraction(std::size_t i) const {
    const auto letter = [&](std::size_t k) -> char {
      if (at_end(k)) return '\0';
      const char c = text_[k];
      if (ignore_case && c >= 'A' && c <= 'Z') return static_cast<char>(c + 32);
      return c;
    };
    switch (letter(i + 1)) {
      case 's':
      case 't':
      case 'm':
      case 'd':
        return i + 2;
      case 'r':
      case 'v':
        return letter(i + 2) == 'e' ? i + 3 : i;
      case 'l':
        return letter(i + 2) == 'l' ? i + 3 : i;
      case '\xC5':
        return ignore_case && letter(i + 2) == '\xBF' ? i + 3 : i;
      default:
        return i;
    }
  }

  /// \s+(?!\S)|\s+ at `i`, where a white space stands; with `newlines_first`, \s*[\r\n]+ is tried before.
  template <bool newlines_first>
  std::size_t spaces(std::size_t i) const {
    std::size_t end = i, last = i, after_newline = i;
    while (!at_end(end)) {
      const Next next = look(end);
      if (next.kind != CharClass::space && next.kind != CharClass::newline) break;
      last = end;
      end += next.length;
      if (next.kind == CharClass::newline) after_newline = end;
    }
    if (newlines_first && after_newline != i) return after_newline;
    // A run before a word leaves its last blank to that word, unless that is all there is.
    return at_end(end) || last == i ? end : last;
  }

  std::size_t next_gpt2(std::size_t i) const {
    if (text_[i] == '\'') {
      const std::size_t end = contraction<false>(i);
      if (end != i) return end;
    }
    const std::size_t begin = text_[i] == ' ' && !at_end(i + 1) ? i + 1 : i;
    const Next next = look(begin);
    if (next.kind != CharClass::space && next.kind != CharClass::newline)
      return skip(begin + next.length, next.kind);
    return spaces<false>(i);
  }

  template <int max_digits>
  std::size_t next_llama(std::size_t i) const {
    const Next first = look(i);
    if (first.kind == CharClass::letter) return skip(i + first.length, CharClass::letter);
    if (first.kind == CharClass::number) {
      std::size_t end = i + first.length;
      for (int digits = 1; digits < max_digits && is(end, CharClass::number); ++digits)
        end += look(end).length;
      return end;
    }
    if (text_[i] == '\'') {
      const std::size_t end = contraction<true>(i);
      if (end != i) return end;
    }
    const std::size_t second = i + first.length;
    if (first.kind != CharClass::newline && is(second, CharClass::letter))
      return skip(second, CharClass::letter);
    if (first.kind == CharClass::other) return skip_newlines(skip(second, CharClass::other));
    if (text_[i] == ' ' && is(second, CharClass::other)) return skip_newlines(skip(second, CharClass::other));
    return spaces<true>(i);
  }

 private:
  const UnicodeTables& tables_;
  std::string_view text_;
};

}  // namespace

std::optional<WordPattern> recognise_word_pattern(std::string_view regex) {
  for (std::size_t i = 0; i < kRegex.size(); ++i)
    if (regex == kRegex[i]) return static_cast<WordPattern>(i);
  return std::nullopt;
}

std::string_view word_pattern_regex(WordPattern pattern) {
  return kRegex[static_cast<std::size_t>(pattern)];
}

std::size_t next_word(WordPattern pattern, const UnicodeTables& tables, std::string_view text,
                      std::size_t begin) {
  const Scanner scanner(tables, text);
  switch (pattern) {
    case WordPattern::gpt2:
      return scanner.next_gpt2(begin);
    case WordPattern::llama3:
      return scanner.next_llama<3>(begin);
    case WordPattern::qwen:
      break;
  }
  return scanner.next_llama<1>(begin);
}

}  // namespace verne
