#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "verne/text/tokenizer.hpp"

namespace verne {

/// Remembers the ids of words up to 15 bytes: open addressing, at most 4 MiB of slots and as much of ids;
/// emptied when full.
class WordCache {
 public:
  static constexpr std::size_t kMaxWordBytes = 15;

  struct Key {
    std::uint64_t low, high;
    bool operator==(const Key&) const = default;
  };
  /// `readable` says how many bytes from `word`'s begin may be read (at least its size); word.size() is 1
  /// to 15.
  static Key make_key(std::string_view word, std::size_t readable) {
    Key key{0, 0};
    if (readable >= 16) {
      std::memcpy(&key.low, word.data(), 8);
      std::memcpy(&key.high, word.data() + 8, 8);
      const std::size_t bits = word.size() * 8;
      if (word.size() < 8) {
        key.low &= (std::uint64_t{1} << bits) - 1;
        key.high = 0;
      } else {
        key.high &= (std::uint64_t{1} << (bits - 64)) - 1;
      }
    } else {
      std::array<char, 16> bytes{};
      std::memcpy(bytes.data(), word.data(), word.size());
      std::memcpy(&key.low, bytes.data(), 8);
      std::memcpy(&key.high, bytes.data() + 8, 8);
    }
    key.high |= std::uint64_t{word.size()} << 56;
    return key;
  }

  /// The ids, or null where the word is not known. Valid until the next insertion.
  bool append(const Key& key, std::vector<TokenId>& out) const {
    if (slots_.empty()) return false;
    for (std::size_t i = hash(key) & mask_;; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.key == key) {
        if (slot.count == 1) {
          out.push_back(slot.ids[0]);
        } else if (slot.count <= 3) {
          for (std::uint32_t k = 0; k < slot.count; ++k) out.push_back(slot.ids[k]);
        } else {
          const auto begin = ids_.begin() + slot.ids[0];
          out.insert(out.end(), begin, begin + slot.count);
        }
        return true;
      }
      if (slot.key.high == 0) return false;
    }
  }
  void insert(const Key& key, std::span<const TokenId> ids);

 private:
  static constexpr std::size_t kFirstSlots = std::size_t{1} << 10, kMaxSlots = std::size_t{1} << 17;
  static constexpr std::size_t kMaxIds = std::size_t{1} << 20;
  struct Slot {
    Key key{0, 0};  ///< high is never 0 in a used slot
    std::array<TokenId, 3> ids{};
    std::uint32_t count = 0;  ///< up to three ids stand here, more in ids_ from ids[0] on
  };
  static std::size_t hash(const Key& key) {
    const std::uint64_t mixed = (key.low ^ (key.high << 29 | key.high >> 35)) * 0x9E3779B97F4A7C15u;
    return static_cast<std::size_t>(mixed ^ mixed >> 32);
  }
  void place(const Slot& slot);

  std::vector<Slot> slots_;
  std::vector<TokenId> ids_;
  std::size_t mask_ = 0, count_ = 0;
};

}  // namespace verne
