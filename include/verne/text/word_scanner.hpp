#pragma once
#include <cstddef>
#include <optional>
#include <string_view>

#include "verne/text/unicode.hpp"

namespace verne {

/// Hand-written equivalents of the split patterns that most models use. Each covers every text without a gap.
enum class WordPattern {
  gpt2,    ///< 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  llama3,  ///< (?i:'s|...)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
           ///< ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  qwen,    ///< the same with \p{N} alone
};

/// The pattern that `regex` spells, to the letter.
std::optional<WordPattern> recognise_word_pattern(std::string_view regex);
std::string_view word_pattern_regex(WordPattern pattern);

/// Where the word that begins at `begin` (< text.size()) ends. `text` is valid UTF-8.
std::size_t next_word(WordPattern pattern, const UnicodeTables& tables, std::string_view text,
                      std::size_t begin);

}  // namespace verne
