#pragma once
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "verne/text/pattern.hpp"
#include "verne/text/unicode.hpp"

namespace verne {

struct PrependText {
  std::string text;
};
struct ReplacePattern {
  Pattern pattern;
  std::string content;
};
enum class StripSide { none, left, right, both };
struct StripSpaces {
  StripSide side;
};
struct LowerCase {};
using NormalizerStep = std::variant<NormalForm, PrependText, ReplacePattern, StripSpaces, LowerCase>;

/// The steps of a tokenizer's normalizer, in order.
class Normalizer {
 public:
  void add(NormalizerStep step) { steps_.push_back(std::move(step)); }
  bool empty() const { return steps_.empty(); }
  /// `text` as the normalizer leaves it: `text` itself where nothing changes, else a view of `buffer`.
  std::string_view apply(std::string_view text, std::string& buffer) const;

 private:
  std::vector<NormalizerStep> steps_;
};

}  // namespace verne
