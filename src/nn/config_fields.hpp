#pragma once
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "verne/base/error.hpp"

namespace verne {

using Json = nlohmann::json;

/// Typed access to one JSON object; null means absent, and messages name the file and the key.
class Fields {
 public:
  /// No real model has an extent near this. With at most kMostLayers layers, all counts of parameters and
  /// bytes fit 64 bits.
  static constexpr std::int64_t kMost = std::int64_t{1} << 24;
  static constexpr std::int64_t kMostLayers = 4096;

  Fields(const Json& object, std::string origin, std::string prefix = "")
      : object_(object), origin_(std::move(origin)), prefix_(std::move(prefix)) {}

  const Json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  template <class... Args>
  [[noreturn]] void refuse(const char* key, fmt::format_string<Args...> format, Args&&... args) const {
    throw_user_error("{}: \"{}{}\": {}", origin_, prefix_, key,
                     message_text(format, std::forward<Args>(args)...));
  }

  std::optional<std::int64_t> integer(const char* key) const {
    const Json* value = find(key);
    if (!value) return std::nullopt;
    if (!value->is_number_integer() ||
        (value->is_number_unsigned() && value->get<std::uint64_t>() > INT64_MAX))
      refuse(key, "found {}, expected an integer", shown(*value));
    return value->get<std::int64_t>();
  }
  std::optional<std::int64_t> positive(const char* key) const {
    const auto value = integer(key);
    if (value && (*value <= 0 || *value > kMost))
      refuse(key, "found {}, expected a number from 1 to {}", *value, kMost);
    return value;
  }
  std::int64_t required(const char* key) const {
    const auto value = positive(key);
    if (!value) refuse(key, "missing; expected a positive integer");
    return *value;
  }
  /// A token id or a place in a list: 0 or more.
  std::optional<std::int64_t> index(const char* key) const {
    const auto value = integer(key);
    if (value && *value < 0) refuse(key, "found {}, expected 0 or more", *value);
    return value;
  }
  std::optional<double> number(const char* key) const {
    const Json* value = find(key);
    if (!value) return std::nullopt;
    if (!value->is_number()) refuse(key, "found {}, expected a number", shown(*value));
    return value->get<double>();
  }
  std::optional<double> positive_number(const char* key) const {
    const auto value = number(key);
    if (value && !(*value > 0 && std::isfinite(*value)))
      refuse(key, "found {}, expected a number above 0", *value);
    return value;
  }
  std::optional<bool> boolean(const char* key) const {
    const Json* value = find(key);
    if (!value) return std::nullopt;
    if (!value->is_boolean()) refuse(key, "found {}, expected true or false", shown(*value));
    return value->get<bool>();
  }
  std::optional<std::string> text(const char* key) const {
    const Json* value = find(key);
    if (!value) return std::nullopt;
    if (!value->is_string()) refuse(key, "found {}, expected a string", shown(*value));
    return value->get<std::string>();
  }
  /// The members of the object under `key`, which is there; other types are refused.
  Fields nested(const char* key) const {
    const Json& value = *find(key);
    if (!value.is_object()) refuse(key, "found {}, expected an object", shown(value));
    return {value, origin_, prefix_ + key + "."};
  }
  const Json& json() const { return object_; }
  /// A value for a message, cut where it is long.
  static std::string shown(const Json& value) {
    constexpr std::size_t kLongest = 200;
    std::string text = value.dump();
    if (text.size() > kLongest) text.replace(kLongest, std::string::npos, "...");
    return text;
  }

 private:
  const Json& object_;
  std::string origin_, prefix_;
};

}  // namespace verne
