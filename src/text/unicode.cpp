#include "verne/text/unicode.hpp"

#include <utf8proc.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "verne/base/error.hpp"

namespace verne {
namespace {

constexpr std::uint32_t kCodePoints = 0x110000;

struct CodePointRange {
  std::uint32_t first, last;
};
// Ideographs newer than some installed utf8proc: ends of the URO and of extensions B and C, extensions I and
// H (Unicode 14 to 15.1).
constexpr std::array kNewIdeographs{CodePointRange{0x9FFD, 0x9FFF}, CodePointRange{0x2A6DE, 0x2A6DF},
                                    CodePointRange{0x2B735, 0x2B739}, CodePointRange{0x2EBF0, 0x2EE5D},
                                    CodePointRange{0x31350, 0x323AF}};

bool is_white_space(std::uint32_t c, utf8proc_category_t category) {
  return (c >= 9 && c <= 13) || c == 0x85 || category == UTF8PROC_CATEGORY_ZS ||
         category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

CharClass class_of(std::uint32_t c, utf8proc_category_t category) {
  if (c == '\r' || c == '\n') return CharClass::newline;
  if (is_white_space(c, category)) return CharClass::space;
  if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) return CharClass::letter;
  if (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO) return CharClass::number;
  return CharClass::other;
}

bool is_word_char(std::uint32_t c, utf8proc_category_t category) {
  return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_ND) ||
         category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D ||
         (c >= 0x24B6 && c <= 0x24E9);
}

}  // namespace

UnicodeTables::UnicodeTables() : flags_(kCodePoints, '\0') {
  std::array<utf8proc_int32_t, 64> decomposed{};
  std::string composes_backward(kCodePoints, '\0');  // may join, or be reordered with, what stands before
  for (std::uint32_t c = 0; c < kCodePoints; ++c) {
    const utf8proc_property_t* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
    const auto category = static_cast<utf8proc_category_t>(property->category);
    unsigned flags = static_cast<unsigned>(class_of(c, category));
    if (is_word_char(c, category)) flags |= kWord;
    const bool ascii_sign = c > 32 && c < 127 && !std::isalnum(static_cast<int>(c));
    if (ascii_sign || (category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO))
      flags |= kPunctuation;
    if (property->combining_class != 0) composes_backward[c] = 1;
    // Whatever stands second or later in a canonical decomposition may compose with its left neighbour.
    if (property->decomp_seqindex != UINT16_MAX || (c >= 0xAC00 && c <= 0xD7A3)) {
      int boundary = 0;
      const auto length = utf8proc_decompose_char(
          static_cast<utf8proc_int32_t>(c), decomposed.data(), decomposed.size(),
          static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), &boundary);
      for (utf8proc_ssize_t i = 1; i < length && i < static_cast<utf8proc_ssize_t>(decomposed.size()); ++i)
        composes_backward[static_cast<std::size_t>(decomposed[static_cast<std::size_t>(i)])] = 1;
      // Recomposed it may come out otherwise: composition exclusions and singletons.
      if (length == 1 && decomposed[0] != static_cast<utf8proc_int32_t>(c)) composes_backward[c] = 1;
      if (length > 1) {
        const auto composed = utf8proc_normalize_utf32(
            decomposed.data(), length, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
        if (composed != 1 || decomposed[0] != static_cast<utf8proc_int32_t>(c)) composes_backward[c] = 1;
      }
    }
    flags_[c] = static_cast<char>(flags);
  }
  for (const CodePointRange& range : kNewIdeographs)
    for (std::uint32_t c = range.first; c <= range.last; ++c)
      flags_[c] = static_cast<char>(static_cast<unsigned>(CharClass::letter) | kWord);
  for (std::uint32_t c = 0; c < kCodePoints; ++c)
    if (!composes_backward[c])
      flags_[c] = static_cast<char>(static_cast<unsigned char>(flags_[c]) | kNfcInert);
}

const UnicodeTables& UnicodeTables::get() {
  static const UnicodeTables tables;
  return tables;
}

bool UnicodeTables::is_space(std::uint32_t code_point) const {
  const CharClass c = char_class(code_point);
  return c == CharClass::space || c == CharClass::newline;
}

DecodedChar decode_char_before(std::string_view text, std::size_t end) {
  std::size_t start = end - 1;
  while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
  return decode_char(text, start);
}

void append_utf8(std::string& out, std::uint32_t c) {
  const auto put = [&](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  }
}

bool is_ascii(std::string_view text) {
  std::size_t i = 0;
  std::uint64_t high = 0;
  for (; i + 32 <= text.size(); i += 32) {
    std::array<std::uint64_t, 4> words;
    std::memcpy(words.data(), text.data() + i, 32);
    high |= words[0] | words[1] | words[2] | words[3];
  }
  for (; i < text.size(); ++i) high |= static_cast<std::uint64_t>(static_cast<unsigned char>(text[i]));
  return (high & 0x8080808080808080u) == 0;
}

namespace {

/// Length of the character at `i`, or 0 with `bad` set to the length of the maximal ill-formed part.
std::size_t valid_char_length(std::string_view s, std::size_t i, std::size_t& bad) {
  const auto byte = [&](std::size_t k) { return static_cast<unsigned char>(s[k]); };
  const unsigned first = byte(i);
  if (first < 0x80) return 1;
  std::size_t length = 0;
  unsigned low = 0x80, high = 0xBF;  // of the second byte
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  } else {
    bad = 1;
    return 0;
  }
  for (std::size_t k = 1; k < length; ++k) {
    if (i + k >= s.size() || byte(i + k) < low || byte(i + k) > high) {
      bad = k;
      return 0;
    }
    low = 0x80, high = 0xBF;
  }
  return length;
}

}  // namespace

bool is_valid_utf8(std::string_view text) {
  std::size_t bad = 0;
  for (std::size_t i = 0; i < text.size();) {
    if (i + 8 <= text.size()) {
      std::uint64_t word;
      std::memcpy(&word, text.data() + i, 8);
      if ((word & 0x8080808080808080u) == 0) {
        i += 8;
        continue;
      }
    }
    const std::size_t length = valid_char_length(text, i, bad);
    if (length == 0) return false;
    i += length;
  }
  return true;
}

std::string replace_invalid_utf8(std::string_view bytes) {
  if (is_valid_utf8(bytes)) return std::string(bytes);
  std::string out;
  out.reserve(bytes.size() + 16);
  for (std::size_t i = 0; i < bytes.size();) {
    std::size_t bad = 0;
    const std::size_t length = valid_char_length(bytes, i, bad);
    if (length != 0) {
      out.append(bytes.substr(i, length));
      i += length;
    } else {
      out.append("\xEF\xBF\xBD");
      i += bad;
    }
  }
  return out;
}

std::string_view strip_spaces(std::string_view text) {
  const UnicodeTables& tables = UnicodeTables::get();
  const auto blank = [&](std::uint32_t c) { return tables.is_space(c) || (c >= 0x1C && c <= 0x1F); };
  while (!text.empty()) {
    const DecodedChar c = decode_char(text, 0);
    if (!blank(c.code_point)) break;
    text.remove_prefix(c.length);
  }
  while (!text.empty()) {
    const DecodedChar c = decode_char_before(text, text.size());
    if (!blank(c.code_point)) break;
    text.remove_suffix(c.length);
  }
  return text;
}

bool is_surely_nfc(std::string_view text) {
  if (is_ascii(text)) return true;
  const UnicodeTables& tables = UnicodeTables::get();
  for (std::size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    if (!tables.is_nfc_inert(c.code_point)) return false;
    i += c.length;
  }
  return true;
}

std::string normalize_unicode(std::string_view text, NormalForm form) {
  if (is_ascii(text) || (form == NormalForm::nfc && is_surely_nfc(text))) return std::string(text);
  int options = UTF8PROC_STABLE;
  options |= form == NormalForm::nfc || form == NormalForm::nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::nfkc || form == NormalForm::nfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* mapped = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                                   static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(mapped, std::free);
  require_user(length >= 0, "text of {} bytes cannot be normalized: {}", text.size(),
               utf8proc_errmsg(length));
  return std::string(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(length));
}

std::string to_lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    if (c.code_point == 0x130)  // the one letter whose lower case is two characters
      out.append("i\xCC\x87");
    else
      append_utf8(out,
                  static_cast<std::uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.code_point))));
    i += c.length;
  }
  return out;
}

}  // namespace verne
