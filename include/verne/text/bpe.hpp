#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "verne/text/vocabulary.hpp"

namespace verne {

/// The byte alphabet of byte-level BPE: bytes 0x21-0x7E, 0xA1-0xAC and 0xAE-0xFF stand for the code points of
/// their value, the other 68, in order, for U+0100 and on.
std::uint32_t byte_to_code_point(unsigned char byte);
/// The byte that a code point stands for, or -1.
int code_point_to_byte(std::uint32_t code_point);

/// Byte-pair encoding of one piece: split in characters, then the pair of lowest rank is merged, leftmost
/// first.
class BpeModel {
 public:
  enum class Alphabet { characters, bytes };

  Vocabulary vocabulary;
  MergeTable merges;
  Alphabet alphabet = Alphabet::characters;
  TokenId unknown = kNoToken;  ///< dropped where there is none
  bool fuse_unknown = false;   ///< a run of unknown characters is one token
  bool byte_fallback = false;  ///< an unknown character becomes <0xHH> of its UTF-8, where all of them exist
  bool ignore_merges = false;  ///< a piece that is a token is that token

  /// Fills the tables that encoding reads; call once, after the vocabulary is complete.
  void prepare();

  struct Scratch {
    std::vector<TokenId> symbols;
    std::vector<MergeTable::Merge> pairs;
    std::vector<std::uint32_t> next, previous;
    struct Candidate {
      std::uint32_t rank, position;
      TokenId result;
    };
    std::vector<Candidate> heap;
    std::string spelled;
  };
  /// Appends the ids of `piece` (valid UTF-8). No merge and no whole piece gives a token of `forbidden`.
  void encode(std::string_view piece, std::span<const TokenId> forbidden, Scratch& scratch,
              std::vector<TokenId>& out) const;

 private:
  void add_unknown(std::string_view spelled, TokenId& pending, std::vector<TokenId>& symbols) const;
  void start_symbols(std::string_view piece, std::vector<TokenId>& symbols) const;

  std::array<TokenId, 256> byte_ids_{};      ///< of a byte's letter in the byte alphabet
  std::array<TokenId, 256> fallback_ids_{};  ///< of <0xHH>
};

}  // namespace verne
