#pragma once
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "verne/text/regex.hpp"

namespace verne {

/// What a Split or Replace looks for: a text as it stands, or a regular expression.
using Pattern = std::variant<std::string, Regex>;

/// What becomes of the matches of a split.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// A part of a text, and whether it matched.
struct MatchedPart {
  std::size_t begin, end;
  bool matches;
};

/// Cuts `text` into matches and what lies between them, in order, without a gap; appends to `parts`. An empty
/// text has no parts. `matcher` is scratch of the caller for a Regex, made where it is missing.
void find_parts(const Pattern& pattern, std::optional<Regex::Matcher>& matcher, std::string_view text,
                std::vector<MatchedPart>& parts);

/// Every match replaced by `content`.
std::string replace_matches(const Pattern& pattern, std::string_view text, std::string_view content);

/// Joins or drops parts as `behavior` says: what is left are the pieces of the split (empty ones dropped).
void apply_behavior(SplitBehavior behavior, std::vector<MatchedPart>& parts);

}  // namespace verne
