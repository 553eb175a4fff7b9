#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "verne/text/pattern.hpp"

namespace verne {

struct DecodeByteLevel {};
struct DecodeReplace {
  Pattern pattern;
  std::string content;
};
struct DecodeByteFallback {};
struct DecodeFuse {};
struct DecodeStrip {
  std::uint32_t code_point;
  std::int64_t start, stop;  ///< at most so many at the start, at the end of each token
};
struct DecodeMetaspace {
  std::string replacement;
  enum class First { keep, drop } first = First::drop;  ///< of the first token's replacements
};
using DecoderStep = std::variant<DecodeByteLevel, DecodeReplace, DecodeByteFallback, DecodeFuse, DecodeStrip,
                                 DecodeMetaspace>;

/// Turns tokens back into text.
class Decoder {
 public:
  void add(DecoderStep step) {
    steps_.push_back(std::move(step));
    present_ = true;
  }
  /// There is a decoder, if only an empty sequence; without one, tokens are joined with blanks.
  void set_present() { present_ = true; }
  std::string decode(std::vector<std::string> tokens) const;

 private:
  std::vector<DecoderStep> steps_;
  bool present_ = false;
};

}  // namespace verne
