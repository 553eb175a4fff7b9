#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "verne/base/error.hpp"

namespace verne {

/// Texts of any content in one, lengths before them: what one rank tells others.
class PackedTexts {
 public:
  void add(std::string_view text) {
    const std::uint64_t length = text.size();
    packed_.append(reinterpret_cast<const char*>(&length), sizeof length);
    packed_.append(text);
  }
  std::string take() { return std::move(packed_); }

 private:
  std::string packed_;
};

/// The texts again, in order; they lie in the packed text, which must live as long.
class UnpackedTexts {
 public:
  explicit UnpackedTexts(std::string_view packed) : left_(packed) {}
  bool at_end() const { return left_.empty(); }
  std::string_view next() {
    std::uint64_t length = 0;
    std::memcpy(&length, first(sizeof length).data(), sizeof length);
    return first(length);
  }

 private:
  std::string_view first(std::uint64_t bytes) {
    require(bytes <= left_.size(), "another rank's texts end early");
    const std::string_view text = left_.substr(0, bytes);
    left_.remove_prefix(bytes);
    return text;
  }
  std::string_view left_;
};

}  // namespace verne
