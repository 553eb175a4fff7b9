#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace verne {

/// What the split patterns of tokenizers tell apart. A code point has exactly one class.
enum class CharClass : std::uint8_t {
  other,
  letter,   ///< \p{L}
  number,   ///< \p{N}
  space,    ///< White_Space without CR and LF
  newline,  ///< CR, LF
};

/// Tables over all code points, made once from utf8proc; immutable.
class UnicodeTables {
 public:
  static const UnicodeTables& get();

  CharClass char_class(std::uint32_t code_point) const {
    return static_cast<CharClass>(flags_[code_point] & kClassMask);
  }
  bool is_space(std::uint32_t code_point) const;
  bool is_number(std::uint32_t code_point) const { return char_class(code_point) == CharClass::number; }
  /// \w of UTS 18: Alphabetic (here: letters and Nl), M, Nd, Pc, Join_Control.
  bool is_word(std::uint32_t code_point) const { return flags_[code_point] & kWord; }
  /// General category P, or one of the 32 ASCII signs.
  bool is_punctuation(std::uint32_t code_point) const { return flags_[code_point] & kPunctuation; }
  /// False where the code point may change under NFC, alone or after another.
  bool is_nfc_inert(std::uint32_t code_point) const { return flags_[code_point] & kNfcInert; }

 private:
  UnicodeTables();
  static constexpr std::uint8_t kClassMask = 7, kWord = 8, kPunctuation = 16, kNfcInert = 32;
  std::string flags_;  ///< one byte a code point
};

struct DecodedChar {
  std::uint32_t code_point;
  std::uint32_t length;  ///< bytes
};
/// The character at `position` of valid UTF-8.
inline DecodedChar decode_char(std::string_view text, std::size_t position) {
  const auto byte = [&](std::size_t i) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(text[position + i]));
  };
  const std::uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first < 0xE0) return {(first & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (first < 0xF0) return {(first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F), 4};
}
/// The character that ends at `end` (> 0) of valid UTF-8.
DecodedChar decode_char_before(std::string_view text, std::size_t end);
/// `code_point` below 0x110000.
void append_utf8(std::string& out, std::uint32_t code_point);

bool is_ascii(std::string_view text);
bool is_valid_utf8(std::string_view text);
/// Each maximal part that is no character becomes U+FFFD (the Unicode Standard, 3.9, "Substitution of Maximal
/// Subparts").
std::string replace_invalid_utf8(std::string_view bytes);

/// Without white space at both ends, as Python's str.strip (which takes U+001C..U+001F too).
std::string_view strip_spaces(std::string_view text);

enum class NormalForm { nfc, nfd, nfkc, nfkd };
/// `text` is valid UTF-8.
std::string normalize_unicode(std::string_view text, NormalForm form);
bool is_surely_nfc(std::string_view text);
/// Each character's own lower case, without context.
std::string to_lower(std::string_view text);

}  // namespace verne
