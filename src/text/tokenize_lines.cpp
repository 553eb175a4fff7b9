#include "verne/text/tokenize_lines.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "verne/base/error.hpp"

namespace verne {
namespace {

std::string read_line_text(std::string_view line, const std::string& where) {
  nlohmann::json record;
  try {
    record = nlohmann::json::parse(line);
  } catch (const nlohmann::json::exception& error) {
    throw_user_error("{}: not valid JSON: {}", where, error.what());
  }
  require_user(record.is_object() && record.contains("text"), "{}: expected an object with the key 'text'",
               where);
  require_user(record["text"].is_string(), "{}: the value of 'text' is {}, expected a string", where,
               record["text"].type_name());
  return record["text"].get<std::string>();
}

std::string list_text(const std::vector<TokenId>& ids) {
  return fmt::format("[{}]", fmt::join(ids, ", "));
}

}  // namespace

std::string tokenize_lines(const Tokenizer& tokenizer, std::string_view jsonl, const std::string& origin,
                           std::int64_t first_line) {
  if (first_line == 1 && jsonl.starts_with("\xEF\xBB\xBF")) jsonl.remove_prefix(3);
  Encoder encoder(tokenizer);
  std::string out;
  std::vector<TokenId> ids;
  for (std::int64_t number = first_line; !jsonl.empty(); ++number) {
    const std::size_t end = std::min(jsonl.find('\n'), jsonl.size());
    const std::string_view line = jsonl.substr(0, end);
    jsonl.remove_prefix(std::min(end + 1, jsonl.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string text = read_line_text(line, fmt::format("{}:{}", origin, number));
    ids.clear();
    encoder.encode(text, ids);
    out += R"({"ids": )";
    out += list_text(ids);
    out += R"(, "with_special": )";
    out += list_text(tokenizer.with_special(ids));
    out += R"(, "decoded": )";
    out += nlohmann::json(tokenizer.decode(ids)).dump();
    out += "}\n";
  }
  return out;
}

}  // namespace verne
