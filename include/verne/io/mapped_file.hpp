#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>

namespace verne {

/// A file's content in memory, read-only. At least kPaddingBytes zero bytes after its end may be read too.
class MappedFile {
 public:
  static constexpr std::int64_t kPaddingBytes = 4096;

  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const std::filesystem::path& path() const { return path_; }
  std::int64_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, static_cast<std::size_t>(size_)}; }
  std::string_view text() const {
    return {reinterpret_cast<const char*>(data_), static_cast<std::size_t>(size_)};
  }

 private:
  std::filesystem::path path_;
  std::byte* data_ = nullptr;
  std::int64_t size_ = 0, mapped_ = 0;
};

}  // namespace verne
