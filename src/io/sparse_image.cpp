#include "verne/io/sparse_image.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"

namespace verne {

/// Calls visit(page, first byte in it, piece of `bytes`) for every page that [offset, + bytes.size())
/// touches.
template <class Bytes, class Visit>
void SparseImage::for_each_page(std::int64_t offset, Bytes bytes, const Visit& visit) {
  require(offset >= 0, "byte {} of an image", offset);
  while (!bytes.empty()) {
    const std::int64_t page = offset / kPageBytes, begin = offset % kPageBytes;
    const auto count = static_cast<std::size_t>(std::min(kPageBytes - begin, std::ssize(bytes)));
    visit(page, begin, bytes.first(count));
    bytes = bytes.subspan(count);
    offset += static_cast<std::int64_t>(count);
  }
}

void SparseImage::resize(std::int64_t bytes) {
  require(bytes >= 0, "an image of {} bytes", bytes);
  if (bytes < size_) {
    pages_.erase(pages_.lower_bound(divide_round_up(bytes, kPageBytes)), pages_.end());
    if (const auto last = pages_.find(bytes / kPageBytes); last != pages_.end())
      std::fill(last->second->begin() + bytes % kPageBytes, last->second->end(), std::byte{});
  }
  size_ = bytes;
}

void SparseImage::read(std::int64_t offset, std::span<std::byte> to) const {
  for_each_page(offset, to, [&](std::int64_t page, std::int64_t begin, std::span<std::byte> piece) {
    const auto found = pages_.find(page);
    if (found == pages_.end()) {
      std::memset(piece.data(), 0, piece.size());
    } else {
      std::memcpy(piece.data(), found->second->data() + begin, piece.size());
    }
  });
}

void SparseImage::write(std::int64_t offset, std::span<const std::byte> from) {
  for_each_page(offset, from, [&](std::int64_t page, std::int64_t begin, std::span<const std::byte> piece) {
    std::unique_ptr<Page>& target = pages_[page];
    if (!target) target = std::make_unique<Page>();
    std::memcpy(target->data() + begin, piece.data(), piece.size());
  });
  size_ = std::max(size_, offset + std::ssize(from));
}

void SparseImage::write_to(const File& file) const {
  constexpr std::size_t kPieceBytes = std::size_t{4} << 20;
  std::vector<std::byte> piece;
  std::int64_t begin = 0;
  const auto flush = [&] {
    file.write_at(begin, piece);
    piece.clear();
  };
  for (const auto& [page, content] : pages_) {
    const std::int64_t at = page * kPageBytes;
    if (!piece.empty() && (at != begin + std::ssize(piece) || piece.size() >= kPieceBytes)) flush();
    if (piece.empty()) begin = at;
    piece.insert(piece.end(), content->begin(),
                 content->begin() + std::min(kPageBytes, std::max<std::int64_t>(size_ - at, 0)));
  }
  if (!piece.empty()) flush();
}

}  // namespace verne
