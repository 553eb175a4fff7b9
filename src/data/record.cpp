#include "verne/data/record.hpp"

#include <simdjson.h>

#include <cmath>
#include <initializer_list>
#include <utility>

#include "verne/base/error.hpp"
#include "verne/data/iso8601.hpp"

namespace verne {
namespace {

namespace dom = simdjson::dom;

std::string_view type_name(const dom::element& value) {
  switch (value.type()) {
    case dom::element_type::ARRAY:
      return "an array";
    case dom::element_type::OBJECT:
      return "an object";
    case dom::element_type::INT64:
    case dom::element_type::UINT64:
      return "an integer";
    case dom::element_type::DOUBLE:
      return "a number with a fraction";
    case dom::element_type::STRING:
      return "a string";
    case dom::element_type::BOOL:
      return "true or false";
    case dom::element_type::NULL_VALUE:
      return "null";
  }
  return "something else";
}

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  out += '"';
}

/// The fields of one line's object. Of a name given twice the last counts, as in most JSON readers.
class Fields {
 public:
  explicit Fields(const dom::object& object) : object_(object) {}

  bool has(std::string_view key) const { return find(key).has_value(); }
  std::optional<dom::element> find(std::string_view key) const {
    std::optional<dom::element> found;
    for (const auto field : object_) {
      if (field.key == key) found = field.value;
    }
    return found;
  }
  bool is_array(std::string_view key) const {
    const auto value = find(key);
    return value && value->is_array();
  }
  std::string text(std::string_view key) const {
    const auto value = find(key);
    require_user(value.has_value(), "the field '{}' is missing; found {}", key, names());
    require_user(value->is_string(), "the field '{}' is {}, expected a string", key, type_name(*value));
    return std::string(std::string_view(value->get_string()));
  }
  /// As `text`, but absent, null and "" are no value.
  std::optional<std::string> optional_text(std::string_view key) const {
    const auto value = find(key);
    if (!value || value->is_null()) return std::nullopt;
    std::string result = text(key);
    if (result.empty()) return std::nullopt;
    return result;
  }
  dom::array array(std::string_view key) const {
    const auto value = find(key);
    require_user(value && value->is_array(), "the field '{}' is {}, expected an array", key,
                 value ? type_name(*value) : "missing");
    return value->get_array();
  }
  std::string names() const {
    std::string result;
    for (const auto field : object_) {
      if (!result.empty()) result += ", ";
      result += fmt::format("'{}'", field.key);
    }
    return result.empty() ? "no field" : result;
  }
  std::string metadata(std::initializer_list<std::string_view> used) const {
    std::string result = "{";
    for (const auto field : object_) {
      bool skip = false;
      for (const std::string_view name : used) skip = skip || (!name.empty() && field.key == name);
      if (skip) continue;
      if (result.size() > 1) result += ',';
      append_json_string(result, field.key);
      result += ':';
      result += simdjson::minify(field.value);
    }
    return result + '}';
  }

 private:
  const dom::object& object_;
};

/// A message's content: a string, or OpenAI's list of {"type": "text", "text"} parts, joined.
std::string message_content(const Fields& message, std::string_view key, std::int64_t index) {
  if (!message.is_array(key)) return message.text(key);
  std::string result;
  for (const dom::element part : message.array(key)) {
    std::string_view type, text;
    const bool good = part.is_object() && part["type"].get_string().get(type) == simdjson::SUCCESS &&
                      type == "text" && part["text"].get_string().get(text) == simdjson::SUCCESS;
    require_user(
        good,
        "message {} has a part that is not {{\"type\": \"text\", \"text\": ...}}; only text is supported",
        index);
    result += text;
  }
  return result;
}

Conversation parse_messages(const Fields& fields, std::string_view key) {
  Conversation conversation;
  if (auto system = fields.optional_text("system"))
    conversation.messages.push_back({"system", std::move(*system), {}});
  const bool outer_system = !conversation.messages.empty();
  std::int64_t index = 0;
  for (const dom::element entry : fields.array(key)) {
    require_user(entry.is_object(), "message {} of '{}' is {}, expected an object with role and content",
                 index, key, type_name(entry));
    const dom::object object = entry.get_object();
    const Fields message(object);
    const bool share_gpt = message.has("from") && !message.has("role");
    Message& out = conversation.messages.emplace_back();
    out.role = message.text(share_gpt ? "from" : "role");
    if (const auto calls = message.find("tool_calls"); calls && !calls->is_null()) {
      require_user(calls->is_array() && calls->get_array().size() == 0,
                   "message {} has tool calls, which are not supported; render them into its content", index);
    }
    out.content = message_content(message, share_gpt ? "value" : "content", index);
    out.reasoning_content = message.optional_text("reasoning_content");
    require_user(!outer_system || out.role != "system",
                 "a field 'system' and a system message in '{}'; expected one of them", key);
    ++index;
  }
  require_user(index > 0, "'{}' is empty, expected at least one message", key);
  return conversation;
}

TokenizedRecord parse_tokens(const Fields& fields, const RecordOptions& options) {
  TokenizedRecord record;
  const std::int64_t bound = options.vocab_size.value_or(std::int64_t{1} << 32);
  const dom::array tokens = fields.array("tokens");
  record.tokens.reserve(tokens.size());
  for (const dom::element token : tokens) {
    std::int64_t id = 0;
    const bool integer = token.is_int64() && token.get_int64().get(id) == simdjson::SUCCESS;
    require_user(integer && id >= 0 && id < bound, "tokens[{}] is {}, expected an integer from 0 to {}, {}",
                 record.tokens.size(), simdjson::minify(token), bound - 1,
                 options.vocab_size ? "the vocabulary's last id" : "what 32 bits hold");
    record.tokens.push_back(static_cast<TokenId>(id));
  }
  record.loss_mask.assign(record.tokens.size(), 1);
  if (const auto mask = fields.find("loss_mask"); mask && !mask->is_null()) {
    const dom::array entries = fields.array("loss_mask");
    std::size_t count = 0;
    for (const dom::element entry : entries) {
      std::int64_t value = -1;
      if (entry.is_int64()) value = entry.get_int64();
      if (entry.is_bool()) value = bool(entry.get_bool()) ? 1 : 0;
      require_user(value == 0 || value == 1, "loss_mask[{}] is {}, expected 0 or 1", count,
                   simdjson::minify(entry));
      if (count < record.loss_mask.size()) record.loss_mask[count] = static_cast<std::uint8_t>(value);
      ++count;
    }
    require_user(count == record.tokens.size(),
                 "loss_mask has {} entries, expected {}, one for each of 'tokens'", count,
                 record.tokens.size());
  }
  if (!record.loss_mask.empty()) record.loss_mask[0] = 0;
  return record;
}

Record parse_pair(const Fields& fields, std::string_view input, std::string_view output) {
  PromptCompletion pair{fields.text(input), fields.text(output), fields.optional_text("system")};
  return {TextRecord(std::move(pair)), fields.metadata({input, output, "system"})};
}

}  // namespace

struct RecordParser::State {
  RecordOptions options;
  dom::parser parser;

  /// The line's object; valid until the next call.
  dom::object object(std::string_view line) {
    dom::element root;
    const simdjson::error_code error = parser.parse(line.data(), line.size()).get(root);
    require_user(error == simdjson::SUCCESS, "not valid JSON ({}); expected one object a line",
                 simdjson::error_message(error));
    require_user(root.is_object(), "found {}, expected a JSON object", type_name(root));
    return root.get_object();
  }
};

RecordParser::RecordParser(RecordOptions options) : state_(std::make_unique<State>()) {
  state_->options = std::move(options);
}
RecordParser::~RecordParser() = default;
RecordParser::RecordParser(RecordParser&&) noexcept = default;
RecordParser& RecordParser::operator=(RecordParser&&) noexcept = default;

Record RecordParser::parse(std::string_view line) {
  const RecordOptions& options = state_->options;
  const dom::object object = state_->object(line);
  const Fields fields(object);
  if (fields.is_array("tokens")) {
    return {parse_tokens(fields, options), fields.metadata({"tokens", "loss_mask"})};
  }
  if (!options.input_key.empty() || !options.output_key.empty()) {
    return parse_pair(fields, options.input_key.empty() ? "input" : options.input_key,
                      options.output_key.empty() ? "output" : options.output_key);
  }
  for (const std::string_view key : {"messages", "conversations"}) {
    if (!fields.has(key)) continue;
    return {TextRecord(parse_messages(fields, key)), fields.metadata({key, "system"})};
  }
  if (fields.has("instruction") && fields.has("output")) {
    Instruction record{fields.text("instruction"), fields.optional_text("input").value_or(""),
                       fields.text("output"), fields.optional_text("system")};
    return {TextRecord(std::move(record)), fields.metadata({"instruction", "input", "output", "system"})};
  }
  if (fields.has("prompt") && fields.has("completion")) return parse_pair(fields, "prompt", "completion");
  if (fields.has("input") && fields.has("output")) return parse_pair(fields, "input", "output");
  if (fields.has("text")) return {TextRecord(PlainText{fields.text("text")}), fields.metadata({"text"})};
  throw_user_error(
      "no known form of record: found {}; expected input and output, prompt and completion, instruction and "
      "output, "
      "messages, conversations, text, or tokens. prepare.input_key and prepare.output_key name other fields",
      fields.names());
}

RecordParser::Time RecordParser::parse_time(std::string_view line, const std::string& key) {
  const dom::object object = state_->object(line);
  const Fields fields(object);
  const auto value = fields.find(key);
  require_user(value.has_value(), "the field '{}', by which records are split, is missing; found {}", key,
               fields.names());
  if (value->is_string()) {
    const std::string_view text = value->get_string();
    const auto seconds = parse_iso8601(text);
    require_user(seconds.has_value(),
                 "the field '{}' is \"{}\", expected a number or an ISO 8601 date such as {}", key, text,
                 "2024-03-31 or 2024-03-31T09:30:00Z");
    return {Time::Kind::iso8601, *seconds};
  }
  long double number = 0;
  if (value->is_int64()) {
    number = static_cast<long double>(std::int64_t(value->get_int64()));
  } else if (value->is_uint64()) {
    number = static_cast<long double>(std::uint64_t(value->get_uint64()));
  } else if (value->is_double()) {
    number = double(value->get_double());
  } else {
    throw_user_error(
        "the field '{}', by which records are split, is {}, expected a number or an ISO 8601 date", key,
        type_name(*value));
  }
  return {Time::Kind::number, number};
}

}  // namespace verne
