#include "verne/text/normalizer.hpp"

namespace verne {
namespace {

std::string_view strip(std::string_view text, StripSide side) {
  const UnicodeTables& tables = UnicodeTables::get();
  if (side == StripSide::left || side == StripSide::both) {
    while (!text.empty()) {
      const DecodedChar c = decode_char(text, 0);
      if (!tables.is_space(c.code_point)) break;
      text.remove_prefix(c.length);
    }
  }
  if (side == StripSide::right || side == StripSide::both) {
    while (!text.empty()) {
      const DecodedChar c = decode_char_before(text, text.size());
      if (!tables.is_space(c.code_point)) break;
      text.remove_suffix(c.length);
    }
  }
  return text;
}

struct ApplyStep {
  std::string_view text;
  std::string& result;  ///< filled where the step changes the text
  std::string_view operator()(NormalForm form) const {
    if (form == NormalForm::nfc ? is_surely_nfc(text) : is_ascii(text)) return text;
    result = normalize_unicode(text, form);
    return result;
  }
  std::string_view operator()(const PrependText& step) const {
    if (text.empty() || step.text.empty()) return text;
    result = step.text + std::string(text);
    return result;
  }
  std::string_view operator()(const ReplacePattern& step) const {
    result = replace_matches(step.pattern, text, step.content);
    return result;
  }
  std::string_view operator()(const StripSpaces& step) const { return strip(text, step.side); }
  std::string_view operator()(const LowerCase&) const {
    result = to_lower(text);
    return result;
  }
};

}  // namespace

std::string_view Normalizer::apply(std::string_view text, std::string& buffer) const {
  std::string_view current = text;
  for (const NormalizerStep& step : steps_) {
    std::string result;
    const std::string_view next = std::visit(ApplyStep{current, result}, step);
    if (next.data() == result.data() && !result.empty()) {
      buffer.swap(result);
      current = buffer;
    } else {
      current = next.empty() ? std::string_view{} : next;
    }
  }
  return current;
}

}  // namespace verne
