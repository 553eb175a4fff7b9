#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace verne {

/// XXH3, 64 bits.
std::uint64_t xxh3(std::span<const std::byte> bytes);
std::uint64_t xxh3(std::string_view text);

/// SHA-256, incremental; `hex()` ends it.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_hex(std::string_view text);
/// SHA-256 of a file's content. Throws UserError where it cannot be read.
std::string sha256_file(const std::filesystem::path& path);

/// 16 lower-case hex digits.
std::string hex64(std::uint64_t value);

}  // namespace verne
