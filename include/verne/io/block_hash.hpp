#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace verne {

/// Large reads and writes go in pieces of this size, each hashed while it is in the processor's cache.
inline constexpr std::size_t kHashPieceBytes = std::size_t{512} << 10;

/// XXH3 (64 bits) of bytes that come in pieces.
class BlockHash {
 public:
  BlockHash();
  ~BlockHash();
  BlockHash(const BlockHash&) = delete;
  BlockHash& operator=(const BlockHash&) = delete;
  void update(std::span<const std::byte> piece);
  std::uint64_t value() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Calls visit(offset, piece) for `bytes` in pieces of kHashPieceBytes.
template <class Bytes, class Visit>
void for_each_piece(Bytes bytes, const Visit& visit) {
  for (std::size_t at = 0; at < bytes.size(); at += kHashPieceBytes)
    visit(static_cast<std::int64_t>(at), bytes.subspan(at, std::min(kHashPieceBytes, bytes.size() - at)));
}

}  // namespace verne
