#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "verne/text/tokenizer.hpp"

namespace verne {

inline constexpr TokenId kNoToken = 0xFFFFFFFFu;
/// No vocabulary is near this; a larger id in a file is an error.
inline constexpr std::int64_t kMaxVocabSize = std::int64_t{1} << 22;

/// Tokens and ids both ways. Ids need not be dense.
class Vocabulary {
 public:
  enum class Added { yes, token_exists, id_exists };
  /// `id` is below kMaxVocabSize.
  Added add(std::string_view token, TokenId id);
  TokenId find(std::string_view token) const;
  bool has(TokenId id) const { return id < spans_.size() && spans_[id].begin != kAbsent; }
  std::string_view token(TokenId id) const {
    return std::string_view(text_).substr(spans_[id].begin, spans_[id].size);
  }
  /// Largest id + 1.
  std::int64_t size() const { return static_cast<std::int64_t>(spans_.size()); }
  void reserve(std::int64_t tokens);

 private:
  static constexpr std::uint64_t kAbsent = ~std::uint64_t{0};
  struct TokenSpan {
    std::uint64_t begin = kAbsent;
    std::uint32_t size = 0;
  };
  void grow(std::size_t slots);
  std::size_t slot_of(std::string_view token) const;

  std::string text_;
  std::vector<TokenSpan> spans_;  ///< by id
  std::vector<TokenId> slots_;    ///< open addressing, a power of two of them
  std::size_t count_ = 0;
};

/// Which pairs merge, with their rank and what they become: a flat hash table.
class MergeTable {
 public:
  struct Merge {
    std::uint32_t rank = kNoToken;
    TokenId result = kNoToken;
  };
  void reserve(std::int64_t merges);
  /// A later rule for the same pair replaces the earlier one.
  void add(TokenId left, TokenId right, Merge merge);
  Merge find(TokenId left, TokenId right) const {
    if (slots_.empty()) return {};
    const std::uint64_t key = std::uint64_t{left} << 32 | right;
    for (std::size_t i = slot(key);; i = (i + 1) & mask_) {
      if (slots_[i].key == key) return slots_[i].merge;
      if (slots_[i].key == kEmpty) return {};
    }
  }
  bool empty() const { return count_ == 0; }

 private:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t key = kEmpty;
    Merge merge;
  };
  std::size_t slot(std::uint64_t key) const {
    return static_cast<std::size_t>((key * 0x9E3779B97F4A7C15u) >> 32) & mask_;
  }
  std::vector<Slot> slots_;
  std::size_t mask_ = 0, count_ = 0;
};

}  // namespace verne
