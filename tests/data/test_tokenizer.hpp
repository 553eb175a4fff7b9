#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "testing.hpp"
#include "verne/io/json.hpp"

namespace verne::testing {

/// Writes a byte-level tokenizer without merges: id b for byte b, then <|im_start|> 256, <|im_end|> 257,
/// <|endoftext|> 258 (EOS).
inline void write_byte_tokenizer(const std::filesystem::path& folder) {
  // GPT-2's alphabet: printable bytes stand for themselves, the others for U+0100, U+0101, ... in their
  // order.
  const auto utf8 = [](unsigned code) {
    if (code < 0x80) return std::string(1, static_cast<char>(code));
    return std::string{static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
  };
  Json vocab = Json::object();
  unsigned other = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    vocab[utf8(printable ? byte : other++)] = byte;
  }
  Json added = Json::array();
  unsigned id = 256;
  for (const char* token : {"<|im_start|>", "<|im_end|>", "<|endoftext|>"}) {
    added.push_back({{"id", id++},
                     {"content", token},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  Json tokenizer = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  tokenizer["added_tokens"] = added;
  tokenizer["normalizer"] = nullptr;
  tokenizer["pre_tokenizer"] = byte_level;
  tokenizer["post_processor"] = nullptr;
  tokenizer["decoder"] = byte_level;
  tokenizer["model"] = {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}};
  std::filesystem::create_directories(folder);
  write_text(folder / "tokenizer.json", dump_json(tokenizer));
  write_text(folder / "tokenizer_config.json", R"({"eos_token": "<|endoftext|>"})");
}

}  // namespace verne::testing
