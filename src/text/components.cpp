#include "components.hpp"

#include "verne/text/unicode.hpp"

namespace verne {
namespace {

using json_read::bool_at;
using json_read::Element;
using json_read::find;
using json_read::Object;
using json_read::string_at;

constexpr int kMaxDepth = 16;

/// Calls `visit(object, type, where)` for the component, or for each part of a Sequence, whose list stands
/// under `list_key`.
template <class Visit>
void for_each_part(const Element& element, const std::string& where, std::string_view list_key, int depth,
                   const Visit& visit) {
  require_user(depth < kMaxDepth, "{}: more than {} sequences within each other", where, kMaxDepth);
  const Object object = json_read::get_object(element, where);
  const std::string_view type = string_at(object, "type", where);
  if (type != "Sequence") {
    visit(object, type, fmt::format("{} ({})", where, type));
    return;
  }
  std::int64_t index = 0;
  const std::string list_where = fmt::format("{}, {}", where, list_key);
  for (const Element part : json_read::get_array(json_read::require_key(object, list_key, where), list_where))
    for_each_part(part, fmt::format("{}[{}]", list_where, index++), list_key, depth + 1, visit);
}

[[noreturn]] void refuse(std::string_view kind, std::string_view type, const std::string& where,
                         std::string_view supported) {
  throw_user_error("{}: the {} '{}' is not supported; supported are {}", where, kind, type, supported);
}

Pattern read_pattern(const Object& object, const std::string& where) {
  const Element element = json_read::require_key(object, "pattern", where);
  const std::string pattern_where = where + ", pattern";
  const Object pattern = json_read::get_object(element, pattern_where);
  if (const auto text = find(pattern, "String"))
    return std::string(json_read::get_string(*text, pattern_where));
  if (const auto regex = find(pattern, "Regex"))
    return Regex(std::string(json_read::get_string(*regex, pattern_where)), pattern_where);
  throw_user_error("{}: expected {{\"String\": ...}} or {{\"Regex\": ...}}", pattern_where);
}

SplitBehavior read_behavior(std::string_view name, const std::string& where) {
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  throw_user_error(
      "{}, behavior: '{}' is not one of Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous",
      where, name);
}

/// A text that must be one character.
std::string one_character(std::string_view text, const std::string& where) {
  require_user(!text.empty() && decode_char(text, 0).length == text.size(),
               "{}: expected one character, found '{}'", where, text);
  return std::string(text);
}

PreTokenizerStep read_split(const Object& object, const std::string& where) {
  Pattern pattern = read_pattern(object, where);
  const SplitBehavior behavior = read_behavior(string_at(object, "behavior", where), where);
  const bool invert = bool_at(object, "invert", false, where);
  if (const auto* regex = std::get_if<Regex>(&pattern)) {
    // The known patterns leave no gaps, so that keeping the matches is the same as isolating them.
    const bool keeps_matches =
        behavior == SplitBehavior::isolated || (behavior == SplitBehavior::removed && invert);
    const auto words = recognise_word_pattern(regex->pattern());
    if (words && keeps_matches) return SplitWords{*words};
  }
  return SplitOnPattern{std::move(pattern), behavior,
                        invert ? SplitOnPattern::Sense::gaps : SplitOnPattern::Sense::matches};
}

Metaspace read_metaspace(const Object& object, const std::string& where) {
  Metaspace step;
  step.replacement = one_character(string_at(object, "replacement", where), where + ", replacement");
  // Older files have add_prefix_space in place of prepend_scheme.
  if (const auto scheme = find(object, "prepend_scheme")) {
    const std::string_view name = json_read::get_string(*scheme, where + ", prepend_scheme");
    if (name == "always")
      step.prepend = Metaspace::Prepend::always;
    else if (name == "first")
      step.prepend = Metaspace::Prepend::first;
    else if (name == "never")
      step.prepend = Metaspace::Prepend::never;
    else
      throw_user_error("{}, prepend_scheme: '{}' is not one of always, first, never", where, name);
  } else if (!bool_at(object, "add_prefix_space", true, where)) {
    step.prepend = Metaspace::Prepend::never;
  }
  step.split = bool_at(object, "split", true, where) ? Metaspace::Split::yes : Metaspace::Split::no;
  return step;
}

NormalizerStep read_normalizer_step(const Object& object, std::string_view type, const std::string& where) {
  if (type == "NFC") return NormalForm::nfc;
  if (type == "NFD") return NormalForm::nfd;
  if (type == "NFKC") return NormalForm::nfkc;
  if (type == "NFKD") return NormalForm::nfkd;
  if (type == "Lowercase") return LowerCase{};
  if (type == "Prepend") return PrependText{std::string(string_at(object, "prepend", where))};
  if (type == "Replace")
    return ReplacePattern{read_pattern(object, where), std::string(string_at(object, "content", where))};
  if (type == "Strip") {
    const bool left = bool_at(object, "strip_left", true, where),
               right = bool_at(object, "strip_right", true, where);
    return StripSpaces{left ? (right ? StripSide::both : StripSide::left)
                            : (right ? StripSide::right : StripSide::none)};
  }
  refuse("normalizer", type, where, "NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip, Lowercase, Sequence");
}

DecoderStep read_decoder_step(const Object& object, std::string_view type, const std::string& where) {
  if (type == "ByteLevel") return DecodeByteLevel{};
  if (type == "ByteFallback") return DecodeByteFallback{};
  if (type == "Fuse") return DecodeFuse{};
  if (type == "Replace")
    return DecodeReplace{read_pattern(object, where), std::string(string_at(object, "content", where))};
  if (type == "Strip") {
    const std::string content = one_character(string_at(object, "content", where), where + ", content");
    return DecodeStrip{decode_char(content, 0).code_point, json_read::count_at(object, "start", where),
                       json_read::count_at(object, "stop", where)};
  }
  if (type == "Metaspace") {
    const Metaspace metaspace = read_metaspace(object, where);
    return DecodeMetaspace{metaspace.replacement, metaspace.prepend == Metaspace::Prepend::never
                                                      ? DecodeMetaspace::First::keep
                                                      : DecodeMetaspace::First::drop};
  }
  refuse("decoder", type, where, "ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, Sequence");
}

/// TemplateProcessing: what stands before and after the sequence A of "single".
void read_template(const Object& object, const std::string& where, std::vector<TokenId>& before,
                   std::vector<TokenId>& after) {
  bool sequence_seen = false;
  const std::string single_where = where + ", single";
  for (const Element piece :
       json_read::get_array(json_read::require_key(object, "single", where), single_where)) {
    const Object parts = json_read::get_object(piece, single_where);
    if (const auto sequence = find(parts, "Sequence")) {
      const std::string_view id =
          string_at(json_read::get_object(*sequence, single_where), "id", single_where);
      require_user(id == "A" && !sequence_seen, "{}: expected the sequence A once, found '{}'", single_where,
                   id);
      sequence_seen = true;
      continue;
    }
    const Element special = json_read::require_key(parts, "SpecialToken", single_where);
    const std::string_view name = string_at(json_read::get_object(special, single_where), "id", single_where);
    const std::string specials_where = where + ", special_tokens";
    const Object specials =
        json_read::get_object(json_read::require_key(object, "special_tokens", where), specials_where);
    const std::string token_where = fmt::format("{}, '{}'", specials_where, name);
    const Object token =
        json_read::get_object(json_read::require_key(specials, name, specials_where), token_where);
    for (const Element id :
         json_read::get_array(json_read::require_key(token, "ids", token_where), token_where)) {
      const auto value = json_read::get<std::int64_t>(id, token_where, "a token id");
      require_user(value >= 0 && value < kMaxVocabSize, "{}: {} is not a token id", token_where, value);
      (sequence_seen ? after : before).push_back(static_cast<TokenId>(value));
    }
  }
  require_user(sequence_seen, "{}: the sequence A is missing", single_where);
}

}  // namespace

void read_normalizer(const Element& element, const std::string& where, Normalizer& normalizer) {
  for_each_part(element, where, "normalizers", 0,
                [&](const Object& object, std::string_view type, const std::string& part) {
                  normalizer.add(read_normalizer_step(object, type, part));
                });
}

BpeModel::Alphabet read_pre_tokenizer(const Element& element, const std::string& where,
                                      PreTokenizer& pre_tokenizer) {
  auto alphabet = BpeModel::Alphabet::characters;
  const auto visit = [&](const Object& object, std::string_view type, const std::string& part) {
    require_user(alphabet == BpeModel::Alphabet::characters,
                 "{}: a pre_tokenizer after ByteLevel is not supported; ByteLevel must be the last", part);
    if (type == "Split") {
      pre_tokenizer.add(read_split(object, part));
    } else if (type == "ByteLevel") {
      if (bool_at(object, "add_prefix_space", true, part)) pre_tokenizer.add(PrefixSpace{});
      if (bool_at(object, "use_regex", true, part)) pre_tokenizer.add(SplitWords{WordPattern::gpt2});
      alphabet = BpeModel::Alphabet::bytes;
    } else if (type == "Metaspace") {
      pre_tokenizer.add(read_metaspace(object, part));
    } else if (type == "Digits") {
      const bool individual = bool_at(object, "individual_digits", false, part);
      pre_tokenizer.add(
          SplitOnChars{CharKind::digit, individual ? SplitBehavior::isolated : SplitBehavior::contiguous});
    } else if (type == "Whitespace") {
      pre_tokenizer.add(SplitOnPattern{Regex(R"(\w+|[^\w\s]+)", part), SplitBehavior::removed,
                                       SplitOnPattern::Sense::gaps});
    } else if (type == "WhitespaceSplit") {
      pre_tokenizer.add(SplitOnChars{CharKind::white_space, SplitBehavior::removed});
    } else if (type == "Punctuation") {
      const auto behavior = find(object, "behavior");
      pre_tokenizer.add(
          SplitOnChars{CharKind::punctuation,
                       behavior ? read_behavior(json_read::get_string(*behavior, part + ", behavior"), part)
                                : SplitBehavior::isolated});
    } else {
      refuse("pre_tokenizer", type, part,
             "Split, ByteLevel, Metaspace, Digits, Whitespace, WhitespaceSplit, Punctuation, Sequence");
    }
  };
  for_each_part(element, where, "pretokenizers", 0, visit);
  return alphabet;
}

void read_post_processor(const Element& element, const std::string& where, std::vector<TokenId>& prefix,
                         std::vector<TokenId>& suffix) {
  for_each_part(element, where, "processors", 0,
                [&](const Object& object, std::string_view type, const std::string& part) {
                  if (type == "ByteLevel") return;  // moves offsets, adds no token
                  if (type != "TemplateProcessing")
                    refuse("post_processor", type, part, "ByteLevel, TemplateProcessing, Sequence");
                  std::vector<TokenId> before, after;
                  read_template(object, part, before, after);
                  prefix.insert(prefix.begin(), before.begin(), before.end());
                  suffix.insert(suffix.end(), after.begin(), after.end());
                });
}

void read_decoder(const Element& element, const std::string& where, Decoder& decoder) {
  decoder.set_present();
  for_each_part(element, where, "decoders", 0,
                [&](const Object& object, std::string_view type, const std::string& part) {
                  decoder.add(read_decoder_step(object, type, part));
                });
}

}  // namespace verne
