#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace verne {

/// JSON whose objects keep the order of their keys. Looking a key up is linear in the object's size.
using Json = nlohmann::ordered_json;

enum class DuplicateKeys { refuse, last_wins };

struct JsonLimits {
  std::int64_t max_bytes = std::int64_t{64} << 20;
  int max_depth = 64;  ///< of nested objects and arrays
  DuplicateKeys duplicate_keys = DuplicateKeys::refuse;
};

/// Parses untrusted text (UTF-8, a byte order mark allowed) in time and memory linear in its length.
/// UserError that begins with `origin` and gives line, column and byte of what is wrong.
Json parse_json(std::string_view text, const std::string& origin, const JsonLimits& limits = {});
Json read_json_file(const std::filesystem::path& path, const JsonLimits& limits = {});

/// As Hugging Face writes its files: indented by two spaces, a newline at the end, non-ASCII text as it is.
std::string dump_json(const Json& value);

/// One member of an object's top level that is to be set, added at the end, or (no value) removed.
struct JsonEdit {
  std::string key;
  std::optional<Json> value;
};
/// Applies edits to the text of a JSON object and keeps every other byte as it was: order, spelling of
/// numbers, spaces. Throws as parse_json does, and where the text is not an object.
std::string edit_json(std::string_view text, std::span<const JsonEdit> edits, const std::string& origin);

}  // namespace verne
