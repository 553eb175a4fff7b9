#include "verne/text/word_cache.hpp"

#include <algorithm>

namespace verne {

void WordCache::place(const Slot& slot) {
  std::size_t i = hash(slot.key) & mask_;
  while (slots_[i].key.high != 0) i = (i + 1) & mask_;
  slots_[i] = slot;
  ++count_;
}

void WordCache::insert(const Key& key, std::span<const TokenId> ids) {
  if ((count_ + 1) * 2 > slots_.size() || ids_.size() + ids.size() > kMaxIds) {
    const bool full = slots_.size() >= kMaxSlots || ids_.size() + ids.size() > kMaxIds;
    std::vector<Slot> old(full ? slots_.size() : std::clamp(slots_.size() * 4, kFirstSlots, kMaxSlots));
    old.swap(slots_);
    mask_ = slots_.size() - 1;
    count_ = 0;
    if (full) {
      ids_.clear();
    } else {
      for (const Slot& slot : old)
        if (slot.key.high != 0) place(slot);
    }
  }
  Slot slot{.key = key, .count = static_cast<std::uint32_t>(ids.size())};
  if (ids.size() <= slot.ids.size()) {
    std::copy(ids.begin(), ids.end(), slot.ids.begin());
  } else {
    slot.ids[0] = static_cast<TokenId>(ids_.size());
    ids_.insert(ids_.end(), ids.begin(), ids.end());
  }
  place(slot);
}

}  // namespace verne
