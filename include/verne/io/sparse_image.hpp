#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>

#include "verne/io/open_file.hpp"

namespace verne {

/// A file's content in memory of which only the pages exist that were written; the rest reads as zeros. A
/// file of terabytes is as small as what is known of it.
class SparseImage {
 public:
  static constexpr std::int64_t kPageBytes = 4096;

  std::int64_t size() const { return size_; }
  /// Bytes beyond are forgotten.
  void resize(std::int64_t bytes);
  void read(std::int64_t offset, std::span<std::byte> to) const;
  /// Grows the image where it must.
  void write(std::int64_t offset, std::span<const std::byte> from);

  /// Writes the pages that exist to their places in `file`; the others stay as they are there.
  void write_to(const File& file) const;
  std::int64_t memory_bytes() const { return static_cast<std::int64_t>(pages_.size()) * kPageBytes; }

 private:
  using Page = std::array<std::byte, kPageBytes>;
  template <class Bytes, class Visit>
  static void for_each_page(std::int64_t offset, Bytes bytes, const Visit& visit);

  std::map<std::int64_t, std::unique_ptr<Page>> pages_;
  std::int64_t size_ = 0;
};

}  // namespace verne
