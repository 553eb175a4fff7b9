#include "verne/io/block_hash.hpp"

#include <xxhash.h>

#include "verne/base/error.hpp"

namespace verne {

struct BlockHash::State {
  XXH3_state_t* hash = XXH3_createState();
  ~State() { XXH3_freeState(hash); }
};

BlockHash::BlockHash() : state_(std::make_unique<State>()) {
  require(state_->hash != nullptr && XXH3_64bits_reset(state_->hash) == XXH_OK, "XXH3 does not start");
}
BlockHash::~BlockHash() = default;

void BlockHash::update(std::span<const std::byte> piece) {
  XXH3_64bits_update(state_->hash, piece.data(), piece.size());
}
std::uint64_t BlockHash::value() const {
  return XXH3_64bits_digest(state_->hash);
}

}  // namespace verne
