#include "verne/text/bpe.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "verne/text/unicode.hpp"

namespace verne {
namespace {

constexpr bool stands_for_itself(unsigned c) {
  return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF);
}

struct ByteAlphabet {
  std::array<std::uint32_t, 256> letters{};
  std::array<int, 0x144> bytes{};
  constexpr ByteAlphabet() {
    bytes.fill(-1);
    std::uint32_t next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      letters[byte] = stands_for_itself(byte) ? byte : next++;
      bytes[letters[byte]] = static_cast<int>(byte);
    }
  }
};
constexpr ByteAlphabet kByteAlphabet;

/// Merges until no pair has a rule. `find` gives the rule of two tokens. Quadratic, for the short pieces that
/// are the rule.
template <class Find>
void merge_short(std::vector<TokenId>& symbols, std::vector<MergeTable::Merge>& pairs, const Find& find) {
  std::size_t count = symbols.size();
  pairs.resize(count);
  for (std::size_t i = 0; i + 1 < count; ++i) pairs[i] = find(symbols[i], symbols[i + 1]);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i)
      if (pairs[i].rank < pairs[best].rank) best = i;
    if (pairs[best].result == kNoToken) break;
    symbols[best] = pairs[best].result;
    --count;
    for (std::size_t i = best + 1; i < count; ++i) {
      symbols[i] = symbols[i + 1];
      pairs[i] = pairs[i + 1];
    }
    if (best + 1 < count) pairs[best] = find(symbols[best], symbols[best + 1]);
    if (best > 0) pairs[best - 1] = find(symbols[best - 1], symbols[best]);
  }
  symbols.resize(count);
}

/// The same for long pieces: a heap of candidates over a linked list, stale ones skipped. O(n log n).
template <class Find>
void merge_long(BpeModel::Scratch& s, const Find& find) {
  using Candidate = BpeModel::Scratch::Candidate;
  constexpr std::uint32_t kEnd = 0xFFFFFFFFu;
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  const auto count = static_cast<std::uint32_t>(s.symbols.size());
  s.next.resize(count);
  s.previous.resize(count);
  s.heap.clear();
  for (std::uint32_t i = 0; i < count; ++i) {
    s.next[i] = i + 1 < count ? i + 1 : kEnd;
    s.previous[i] = i > 0 ? i - 1 : kEnd;
    if (i + 1 < count) {
      const auto merge = find(s.symbols[i], s.symbols[i + 1]);
      if (merge.result != kNoToken) s.heap.push_back({merge.rank, i, merge.result});
    }
  }
  std::make_heap(s.heap.begin(), s.heap.end(), later);
  const auto offer = [&](std::uint32_t left) {
    const auto merge = find(s.symbols[left], s.symbols[s.next[left]]);
    if (merge.result == kNoToken) return;
    s.heap.push_back({merge.rank, left, merge.result});
    std::push_heap(s.heap.begin(), s.heap.end(), later);
  };
  while (!s.heap.empty()) {
    std::pop_heap(s.heap.begin(), s.heap.end(), later);
    const Candidate top = s.heap.back();
    s.heap.pop_back();
    if (s.symbols[top.position] == kNoToken) continue;
    const std::uint32_t right = s.next[top.position];
    if (right == kEnd || find(s.symbols[top.position], s.symbols[right]).result != top.result) continue;
    s.symbols[top.position] = top.result;
    s.symbols[right] = kNoToken;
    s.next[top.position] = s.next[right];
    if (s.next[right] != kEnd) s.previous[s.next[right]] = top.position;
    if (s.previous[top.position] != kEnd) offer(s.previous[top.position]);
    if (s.next[top.position] != kEnd) offer(top.position);
  }
  std::erase(s.symbols, kNoToken);
}

constexpr std::size_t kShortPiece = 48;

}  // namespace

std::uint32_t byte_to_code_point(unsigned char byte) {
  return kByteAlphabet.letters[byte];
}
int code_point_to_byte(std::uint32_t code_point) {
  return code_point < kByteAlphabet.bytes.size() ? kByteAlphabet.bytes[code_point] : -1;
}

void BpeModel::prepare() {
  for (unsigned byte = 0; byte < 256; ++byte) {
    std::string letter;
    append_utf8(letter, byte_to_code_point(static_cast<unsigned char>(byte)));
    byte_ids_[byte] = vocabulary.find(letter);
    fallback_ids_[byte] = vocabulary.find(fmt::format("<0x{:02X}>", byte));
  }
}

void BpeModel::add_unknown(std::string_view spelled, TokenId& pending, std::vector<TokenId>& symbols) const {
  if (byte_fallback) {
    const auto id = [&](char c) { return fallback_ids_[static_cast<unsigned char>(c)]; };
    if (std::all_of(spelled.begin(), spelled.end(), [&](char c) { return id(c) != kNoToken; })) {
      for (const char c : spelled) symbols.push_back(id(c));
      return;
    }
  }
  if (unknown == kNoToken) return;
  if (pending != kNoToken && !fuse_unknown) symbols.push_back(pending);
  pending = unknown;
}

void BpeModel::start_symbols(std::string_view piece, std::vector<TokenId>& symbols) const {
  symbols.clear();
  TokenId pending = kNoToken;  // an unknown token that the next unknown character may still join
  const auto add_known = [&](TokenId id) {
    if (pending != kNoToken) symbols.push_back(std::exchange(pending, kNoToken));
    symbols.push_back(id);
  };
  std::string letter;
  for (std::size_t i = 0; i < piece.size();) {
    if (alphabet == Alphabet::bytes) {
      const auto byte = static_cast<unsigned char>(piece[i++]);
      if (byte_ids_[byte] != kNoToken) {
        add_known(byte_ids_[byte]);
      } else {
        letter.clear();
        append_utf8(letter, byte_to_code_point(byte));
        add_unknown(letter, pending, symbols);
      }
    } else {
      const std::size_t length = decode_char(piece, i).length;
      const std::string_view character = piece.substr(i, length);
      i += length;
      if (const TokenId id = vocabulary.find(character); id != kNoToken)
        add_known(id);
      else
        add_unknown(character, pending, symbols);
    }
  }
  if (pending != kNoToken) symbols.push_back(pending);
}

void BpeModel::encode(std::string_view piece, std::span<const TokenId> forbidden, Scratch& scratch,
                      std::vector<TokenId>& out) const {
  const auto allowed = [&](TokenId id) {
    return std::find(forbidden.begin(), forbidden.end(), id) == forbidden.end();
  };
  if (ignore_merges) {
    std::string_view spelled = piece;
    if (alphabet == Alphabet::bytes) {
      scratch.spelled.clear();
      for (const char c : piece)
        append_utf8(scratch.spelled, byte_to_code_point(static_cast<unsigned char>(c)));
      spelled = scratch.spelled;
    }
    if (const TokenId id = vocabulary.find(spelled); id != kNoToken && allowed(id)) {
      out.push_back(id);
      return;
    }
  }
  start_symbols(piece, scratch.symbols);
  if (!merges.empty() && scratch.symbols.size() > 1) {
    const auto find = [&](TokenId left, TokenId right) {
      const MergeTable::Merge merge = merges.find(left, right);
      return merge.result == kNoToken || allowed(merge.result) ? merge : MergeTable::Merge{};
    };
    if (scratch.symbols.size() <= kShortPiece)
      merge_short(scratch.symbols, scratch.pairs, find);
    else
      merge_long(scratch, find);
  }
  out.insert(out.end(), scratch.symbols.begin(), scratch.symbols.end());
}

}  // namespace verne
