#pragma once
// Reading of untrusted JSON elements: every failure is a UserError that names the place.
#include <simdjson.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "verne/base/error.hpp"

namespace verne::json_read {

using Element = simdjson::dom::element;
using Object = simdjson::dom::object;
using Array = simdjson::dom::array;

inline std::string_view type_name(const Element& element) {
  switch (element.type()) {
    case simdjson::dom::element_type::ARRAY:
      return "a list";
    case simdjson::dom::element_type::OBJECT:
      return "an object";
    case simdjson::dom::element_type::STRING:
      return "a string";
    case simdjson::dom::element_type::BOOL:
      return "a truth value";
    case simdjson::dom::element_type::NULL_VALUE:
      return "null";
    default:
      return "a number";
  }
}

/// The element under `key`; null counts as absent.
inline std::optional<Element> find(const Object& object, std::string_view key) {
  Element element;
  if (object.at_key(key).get(element) != simdjson::SUCCESS || element.is_null()) return std::nullopt;
  return element;
}

template <class T>
T get(const Element& element, const std::string& where, std::string_view expected) {
  T value{};
  require_user(element.get(value) == simdjson::SUCCESS, "{}: expected {}, found {}", where, expected,
               type_name(element));
  return value;
}
inline Object get_object(const Element& element, const std::string& where) {
  return get<Object>(element, where, "an object");
}
inline Array get_array(const Element& element, const std::string& where) {
  return get<Array>(element, where, "a list");
}
inline std::string_view get_string(const Element& element, const std::string& where) {
  return get<std::string_view>(element, where, "a string");
}

inline Element require_key(const Object& object, std::string_view key, const std::string& where) {
  const auto element = find(object, key);
  require_user(element.has_value(), "{}: the key '{}' is missing", where, key);
  return *element;
}
inline std::string_view string_at(const Object& object, std::string_view key, const std::string& where) {
  return get_string(require_key(object, key, where), fmt::format("{}, {}", where, key));
}
inline bool bool_at(const Object& object, std::string_view key, bool fallback, const std::string& where) {
  const auto element = find(object, key);
  return element ? get<bool>(*element, fmt::format("{}, {}", where, key), "true or false") : fallback;
}
inline std::int64_t count_at(const Object& object, std::string_view key, const std::string& where) {
  const auto element = require_key(object, key, where);
  const auto value = get<std::int64_t>(element, fmt::format("{}, {}", where, key), "a whole number");
  require_user(value >= 0, "{}, {}: expected 0 or more, found {}", where, key, value);
  return value;
}

}  // namespace verne::json_read
