#include "verne/text/vocabulary.hpp"

#include <bit>

#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"

namespace verne {

std::size_t Vocabulary::slot_of(std::string_view token) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t i = static_cast<std::size_t>(xxh3(token)) & mask;
  while (slots_[i] != kNoToken && this->token(slots_[i]) != token) i = (i + 1) & mask;
  return i;
}

void Vocabulary::grow(std::size_t slots) {
  std::vector<TokenId> old(slots, kNoToken);
  old.swap(slots_);
  for (const TokenId id : old)
    if (id != kNoToken) slots_[slot_of(token(id))] = id;
}

void Vocabulary::reserve(std::int64_t tokens) {
  const std::size_t slots = std::bit_ceil(static_cast<std::size_t>(tokens) * 2 + 16);
  if (slots > slots_.size()) grow(slots);
}

Vocabulary::Added Vocabulary::add(std::string_view token, TokenId id) {
  require(id < kMaxVocabSize, "token id {} is out of range", id);
  if ((count_ + 1) * 2 > slots_.size()) grow(std::bit_ceil((count_ + 8) * 4));
  const std::size_t slot = slot_of(token);
  if (slots_[slot] != kNoToken) return Added::token_exists;
  if (has(id)) return Added::id_exists;
  if (id >= spans_.size()) spans_.resize(id + 1);
  spans_[id] = {text_.size(), static_cast<std::uint32_t>(token.size())};
  text_.append(token);
  slots_[slot] = id;
  ++count_;
  return Added::yes;
}

TokenId Vocabulary::find(std::string_view token) const {
  return slots_.empty() ? kNoToken : slots_[slot_of(token)];
}

void MergeTable::reserve(std::int64_t merges) {
  require(slots_.empty(), "a merge table is sized once");
  slots_.resize(std::bit_ceil(static_cast<std::size_t>(merges) * 3 / 2 + 2));
  mask_ = slots_.size() - 1;
}

void MergeTable::add(TokenId left, TokenId right, Merge merge) {
  require(count_ + 1 < slots_.size(), "more merges than were reserved");
  const std::uint64_t key = std::uint64_t{left} << 32 | right;
  std::size_t i = slot(key);
  while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & mask_;
  if (slots_[i].key == kEmpty) ++count_;
  slots_[i] = {key, merge};
}

}  // namespace verne
