#include "verne/text/decoder.hpp"

#include <charconv>
#include <optional>

#include "verne/text/bpe.hpp"
#include "verne/text/unicode.hpp"

namespace verne {
namespace {

using Tokens = std::vector<std::string>;

std::string join(const Tokens& tokens, std::string_view between) {
  std::string text;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) text.append(between);
    text.append(tokens[i]);
  }
  return text;
}

/// The byte of a token <0xHH>.
std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  unsigned value = 0;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, value, 16);
  if (error != std::errc() || end != token.data() + 5) return std::nullopt;
  return static_cast<char>(value);
}

/// Appends the bytes that a token of the byte alphabet stands for, or the token as it is where it has other
/// characters.
void append_bytes(std::string_view token, std::string& bytes) {
  const std::size_t before = bytes.size();
  for (std::size_t i = 0; i < token.size();) {
    const DecodedChar c = decode_char(token, i);
    const int byte = code_point_to_byte(c.code_point);
    if (byte < 0) {
      bytes.resize(before);
      bytes.append(token);
      return;
    }
    bytes.push_back(static_cast<char>(byte));
    i += c.length;
  }
}

struct ApplyStep {
  Tokens& tokens;

  void operator()(const DecodeByteLevel&) const {
    std::string bytes;
    for (const std::string& token : tokens) append_bytes(token, bytes);
    tokens = {replace_invalid_utf8(bytes)};
  }
  void operator()(const DecodeReplace& step) const {
    for (std::string& token : tokens) token = replace_matches(step.pattern, token, step.content);
  }
  void operator()(const DecodeByteFallback&) const {
    Tokens result;
    std::string bytes;
    const auto flush = [&] {
      if (bytes.empty()) return;
      if (is_valid_utf8(bytes))
        result.push_back(bytes);
      else
        result.insert(result.end(), bytes.size(), "\xEF\xBF\xBD");
      bytes.clear();
    };
    for (std::string& token : tokens) {
      if (const auto byte = fallback_byte(token)) {
        bytes.push_back(*byte);
      } else {
        flush();
        result.push_back(std::move(token));
      }
    }
    flush();
    tokens = std::move(result);
  }
  void operator()(const DecodeFuse&) const { tokens = {join(tokens, "")}; }
  void operator()(const DecodeStrip& step) const {
    for (std::string& token : tokens) {
      std::string_view rest = token;
      std::int64_t start_cut = 0;
      for (; start_cut < step.start && !rest.empty(); ++start_cut) {
        const DecodedChar c = decode_char(rest, 0);
        if (c.code_point != step.code_point) break;
        rest.remove_prefix(c.length);
      }
      for (std::int64_t cut = 0; cut < step.stop && !rest.empty(); ++cut) {
        const DecodedChar c = decode_char_before(rest, rest.size());
        if (c.code_point != step.code_point) break;
        rest.remove_suffix(c.length);
      }
      token = std::string(rest);
    }
  }
  void operator()(const DecodeMetaspace& step) const {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const bool drop = i == 0 && step.first == DecodeMetaspace::First::drop;
      tokens[i] = replace_matches(step.replacement, tokens[i], drop ? "" : " ");
    }
  }
};

}  // namespace

std::string Decoder::decode(std::vector<std::string> tokens) const {
  for (const DecoderStep& step : steps_) std::visit(ApplyStep{tokens}, step);
  return join(tokens, present_ ? "" : " ");
}

}  // namespace verne
