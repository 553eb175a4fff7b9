#include "verne/text/pattern.hpp"

#include "verne/text/unicode.hpp"

namespace verne {
namespace {

class PartList {
 public:
  PartList(std::string_view text, std::vector<MatchedPart>& parts) : size_(text.size()), parts_(parts) {}
  void add_match(std::size_t begin, std::size_t end) {
    if (begin != done_) parts_.push_back({done_, begin, false});
    parts_.push_back({begin, end, true});
    done_ = end;
  }
  void finish() {
    if (done_ != size_) parts_.push_back({done_, size_, false});
  }

 private:
  std::size_t size_, done_ = 0;
  std::vector<MatchedPart>& parts_;
};

void find_text(const std::string& wanted, std::string_view text, PartList& list) {
  if (wanted.empty()) return;
  for (std::size_t at = text.find(wanted); at != std::string_view::npos;
       at = text.find(wanted, at + wanted.size()))
    list.add_match(at, at + wanted.size());
}

void find_regex(Regex::Matcher& matcher, std::string_view text, PartList& list) {
  std::size_t from = 0;
  std::optional<std::size_t> previous_end;
  while (from <= text.size()) {
    const auto match = matcher.find(text, from);
    if (!match) break;
    // An empty match right after another one is none.
    if (match->begin == match->end && previous_end == match->end) {
      if (from == text.size()) break;
      from += decode_char(text, from).length;
      continue;
    }
    list.add_match(match->begin, match->end);
    from = match->end;
    previous_end = match->end;
  }
}

}  // namespace

void find_parts(const Pattern& pattern, std::optional<Regex::Matcher>& matcher, std::string_view text,
                std::vector<MatchedPart>& parts) {
  if (text.empty()) return;
  PartList list(text, parts);
  if (const auto* wanted = std::get_if<std::string>(&pattern)) {
    find_text(*wanted, text, list);
  } else {
    if (!matcher) matcher.emplace(std::get<Regex>(pattern));
    find_regex(*matcher, text, list);
  }
  list.finish();
}

std::string replace_matches(const Pattern& pattern, std::string_view text, std::string_view content) {
  std::optional<Regex::Matcher> matcher;
  std::vector<MatchedPart> parts;
  find_parts(pattern, matcher, text, parts);
  std::string out;
  for (const MatchedPart& part : parts)
    out.append(part.matches ? content : text.substr(part.begin, part.end - part.begin));
  return out;
}

void apply_behavior(SplitBehavior behavior, std::vector<MatchedPart>& parts) {
  std::vector<MatchedPart> kept;
  kept.reserve(parts.size());
  bool previous_matches = false;
  switch (behavior) {
    case SplitBehavior::removed:
      for (const MatchedPart& part : parts)
        if (!part.matches) kept.push_back(part);
      break;
    case SplitBehavior::isolated:
      kept = parts;
      break;
    case SplitBehavior::contiguous:
      for (const MatchedPart& part : parts) {
        if (!kept.empty() && part.matches == previous_matches)
          kept.back().end = part.end;
        else
          kept.push_back(part);
        previous_matches = part.matches;
      }
      break;
    case SplitBehavior::merged_with_previous:
      for (const MatchedPart& part : parts) {
        if (part.matches && !previous_matches && !kept.empty())
          kept.back().end = part.end;
        else
          kept.push_back(part);
        previous_matches = part.matches;
      }
      break;
    case SplitBehavior::merged_with_next:
      for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
        if (part->matches && !previous_matches && !kept.empty())
          kept.back().begin = part->begin;
        else
          kept.push_back(*part);
        previous_matches = part->matches;
      }
      kept = std::vector<MatchedPart>(kept.rbegin(), kept.rend());
      break;
  }
  std::erase_if(kept, [](const MatchedPart& part) { return part.begin == part.end; });
  parts.swap(kept);
}

}  // namespace verne
