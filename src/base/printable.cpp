#include "verne/base/printable.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace verne {
namespace {

/// Bytes of the UTF-8 character that `text` begins with, 0 where it begins with none (Unicode 15, table 3-7:
/// shortest forms alone, no surrogates, nothing above U+10FFFF).
std::size_t character_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xC2 && lead <= 0xDF   ? 2
                             : lead >= 0xE0 && lead <= 0xEF ? 3
                             : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                            : 0;
  if (length == 0 || text.size() < length) return 0;
  const std::uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const std::uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return 0;
  for (std::size_t i = 2; i < length; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  return length;
}

enum class LineBreaks { kept, spelled };

std::string spell(std::string_view text, LineBreaks line_breaks) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = character_length(text);
    const auto lead = static_cast<std::uint8_t>(text[0]);
    const bool line_break = lead == '\n' || lead == '\t';
    if (line_break && line_breaks == LineBreaks::kept) {
      out += text[0];
    } else if (line_break) {
      out += lead == '\n' ? "\\n" : "\\t";
    } else if (lead == '\r') {
      out += "\\r";
    } else if (length == 0 || lead < 0x20 || lead == 0x7F) {
      out += fmt::format("\\x{:02x}", lead);
    } else if (length == 2 && lead == 0xC2 && static_cast<std::uint8_t>(text[1]) < 0xA0) {
      out += fmt::format("\\u{:04x}", static_cast<std::uint8_t>(text[1]));
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return out;
}

}  // namespace

std::string printable(std::string_view text) {
  return spell(text, LineBreaks::kept);
}

std::string one_line(std::string_view text) {
  return spell(text, LineBreaks::spelled);
}

}  // namespace verne
