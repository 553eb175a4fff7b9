#pragma once
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace verne {

/// A value that a key does not take; the message says what it expects: "expected a whole number ≥ 1".
class BadValue : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct IntegerRange {
  std::int64_t min = 0;
  std::int64_t max = INT64_MAX;
};
enum class Bound { included, excluded };
struct NumberRange {
  double min = 0;
  double max = 1e300;
  Bound min_bound = Bound::included;
  Bound max_bound = Bound::included;
};
/// "≥ 1", "0 to 1, 1 excluded"
std::string describe(const IntegerRange& range);
std::string describe(const NumberRange& range);

// Each takes the whole text, without spaces around it, and throws BadValue where it is not one.
std::int64_t parse_integer(std::string_view text, const IntegerRange& range);
double parse_number(std::string_view text, const NumberRange& range);
bool parse_switch(std::string_view text);
/// The index in `choices` of the one that `text` spells.
std::size_t parse_choice(std::string_view text, std::span<const std::string_view> choices);
/// Items between commas, spaces around them dropped; `\,` is a comma and `\\` a backslash within an item.
std::vector<std::string> parse_list(std::string_view text);
std::string format_list(std::span<const std::string> items);
/// "a", "a or b", "a, b or c"
std::string either(std::span<const std::string_view> choices);

}  // namespace verne
