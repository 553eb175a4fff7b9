#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace verne {

struct BpeTrainerOptions {
  std::int64_t vocab_size =
      2000;  ///< with the 256 bytes and the special tokens; fewer where the text has no more pairs
  std::vector<std::string> special_tokens = {};  ///< added tokens at the end of the vocabulary, in this order
  std::int64_t min_frequency = 2;                ///< a pair seen less often is not merged
};

/// Learns a byte-level BPE (NFC, the split regex of Qwen) from `texts` and returns a tokenizer.json.
/// Deterministic: of pairs equally frequent the one with the smaller ids is merged first. UserError where
/// vocab_size has no room for the bytes and the special tokens.
std::string train_byte_level_bpe(std::span<const std::string> texts, const BpeTrainerOptions& options);

}  // namespace verne
