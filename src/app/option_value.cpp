#include "verne/app/option_value.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace verne {
namespace {

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// " between 1 and 8" and the like, empty where there is no range to speak of.
template <class Range>
std::string range_suffix(const Range& range) {
  const std::string text = describe(range);
  return text.empty() ? "" : " " + text;
}

}  // namespace

std::string describe(const IntegerRange& range) {
  if (range.max == INT64_MAX) return fmt::format("≥ {}", range.min);
  return fmt::format("{} to {}", range.min, range.max);
}

std::string describe(const NumberRange& range) {
  const bool unbounded = range.max >= 1e300;
  if (unbounded) return fmt::format("{} {}", range.min_bound == Bound::included ? "≥" : ">", range.min);
  std::string text = fmt::format("{} to {}", range.min, range.max);
  if (range.min_bound == Bound::excluded) text += fmt::format(", {} excluded", range.min);
  if (range.max_bound == Bound::excluded) text += fmt::format(", {} excluded", range.max);
  return text;
}

std::int64_t parse_integer(std::string_view text, const IntegerRange& range) {
  std::int64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = result.ec == std::errc() && result.ptr == text.data() + text.size();
  if (!whole || value < range.min || value > range.max) {
    throw BadValue(fmt::format("expected a whole number{}", range_suffix(range)));
  }
  return value;
}

double parse_number(std::string_view text, const NumberRange& range) {
  double value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole =
      result.ec == std::errc() && result.ptr == text.data() + text.size() && std::isfinite(value);
  const bool low = range.min_bound == Bound::included ? value >= range.min : value > range.min;
  const bool high = range.max_bound == Bound::included ? value <= range.max : value < range.max;
  if (!whole || !low || !high) throw BadValue(fmt::format("expected a number{}", range_suffix(range)));
  return value;
}

bool parse_switch(std::string_view text) {
  for (const std::string_view yes : {"true", "yes", "on", "1"}) {
    if (text == yes) return true;
  }
  for (const std::string_view no : {"false", "no", "off", "0"}) {
    if (text == no) return false;
  }
  throw BadValue("expected true or false");
}

std::size_t parse_choice(std::string_view text, std::span<const std::string_view> choices) {
  const auto found = std::find(choices.begin(), choices.end(), text);
  if (found == choices.end()) throw BadValue("expected " + either(choices));
  return static_cast<std::size_t>(found - choices.begin());
}

std::vector<std::string> parse_list(std::string_view text) {
  std::vector<std::string> items;
  std::string item;
  const auto finish = [&] {
    const auto part = trimmed(item);
    if (part.empty()) throw BadValue("expected items between commas, none of them empty");
    items.emplace_back(part);
    item.clear();
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == ',' || text[i + 1] == '\\')) {
      item += text[++i];
    } else if (text[i] == ',') {
      finish();
    } else {
      item += text[i];
    }
  }
  finish();
  return items;
}

std::string format_list(std::span<const std::string> items) {
  std::string text;
  for (const std::string& item : items) {
    if (!text.empty()) text += ',';
    for (const char c : item) {
      if (c == ',' || c == '\\') text += '\\';
      text += c;
    }
  }
  return text;
}

std::string either(std::span<const std::string_view> choices) {
  std::string text;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) text += i + 1 == choices.size() ? " or " : ", ";
    text += choices[i];
  }
  return text;
}

}  // namespace verne
