#include "verne/io/json.hpp"

#include <unordered_map>
#include <utility>
#include <vector>

#include "verne/base/error.hpp"
#include "verne/io/file.hpp"

namespace verne {
namespace {

using Object = Json::object_t;

/// Builds the value from the parser's events. Members are appended without a search, so that a long object
/// costs no more than its length; a hash finds duplicates.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  Builder(const std::string& origin, const JsonLimits& limits) : origin_(origin), limits_(limits) {}

  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& key) override {
    Level& level = levels_.back();
    auto& members = level.value->get_ref<Object&>();
    const auto [known, added] = level.keys.emplace(key, members.size());
    if (added) {
      static_cast<std::vector<Object::value_type>&>(members).emplace_back(std::move(key), nullptr);
    } else {
      require_user(limits_.duplicate_keys == DuplicateKeys::last_wins,
                   "{}: key \"{}\" is given twice in one object", origin_, key);
    }
    level.member = known->second;
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    std::string_view text = error.what();
    if (const auto end = text.find("] "); end != std::string_view::npos) text.remove_prefix(end + 2);
    const auto* at = dynamic_cast<const nlohmann::detail::parse_error*>(&error);
    throw_user_error("{}: not valid JSON{}: {}", origin_, at ? fmt::format(" at byte {}", at->byte) : "",
                     text);
  }

 private:
  struct Level {
    Json* value;
    std::size_t member = 0;  // of an object: where the next value goes
    std::unordered_map<std::string, std::size_t> keys;
  };

  Json* place(Json&& value) {
    if (levels_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Level& level = levels_.back();
    if (level.value->is_array()) {
      auto& items = level.value->get_ref<Json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    auto& members = static_cast<std::vector<Object::value_type>&>(level.value->get_ref<Object&>());
    members[level.member].second = std::move(value);
    return &members[level.member].second;
  }
  bool add(Json&& value) {
    place(std::move(value));
    return true;
  }
  // A pointer into a container stays valid while its level is open: the container grows only once the level
  // is closed.
  bool open(Json&& value) {
    require_user(static_cast<int>(levels_.size()) < limits_.max_depth, "{}: nested deeper than {} levels",
                 origin_, limits_.max_depth);
    levels_.push_back({.value = place(std::move(value)), .keys = {}});
    return true;
  }
  bool close() {
    levels_.pop_back();
    return true;
  }

  const std::string& origin_;
  const JsonLimits& limits_;
  Json root_;
  std::vector<Level> levels_;
};

/// Finds the members of the top-level object of a text that is already known to be valid JSON.
class MemberScanner {
 public:
  struct Member {
    std::string key;
    std::size_t key_begin, value_begin, value_end;
  };

  explicit MemberScanner(std::string_view text) : text_(text) {
    if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;
    skip_space();
    ++at_;  // {
    skip_space();
    while (text_[at_] != '}') {
      if (text_[at_] == ',') ++at_;
      skip_space();
      Member member;
      member.key_begin = at_;
      skip_string();
      member.key = Json::parse(text_.substr(member.key_begin, at_ - member.key_begin)).get<std::string>();
      skip_space();
      ++at_;  // :
      skip_space();
      member.value_begin = at_;
      skip_value();
      member.value_end = at_;
      members_.push_back(std::move(member));
      skip_space();
    }
    end_ = at_;
  }

  const std::vector<Member>& members() const { return members_; }
  std::size_t closing_brace() const { return end_; }

 private:
  void skip_space() { at_ = text_.find_first_not_of(" \t\r\n", at_); }
  void skip_string() {
    for (++at_; text_[at_] != '"'; ++at_)
      if (text_[at_] == '\\') ++at_;
    ++at_;
  }
  void skip_value() {
    int depth = 0;
    do {
      const char c = text_[at_];
      if (c == '"') {
        skip_string();
        continue;
      }
      if (depth == 0 && (c == ',' || c == '}' || c == ']' || c == ' ' || c == '\t' || c == '\r' || c == '\n'))
        return;
      if (c == '{' || c == '[') ++depth;
      if (c == '}' || c == ']') --depth;
      ++at_;
      if (depth == 0 && (c == '}' || c == ']')) return;
    } while (true);
  }

  std::string_view text_;
  std::size_t at_ = 0, end_ = 0;
  std::vector<Member> members_;
};

std::string indented(const Json& value, std::string_view indent) {
  std::string text;
  for (const char c : value.dump(2)) {
    text += c;
    if (c == '\n') text += indent;
  }
  return text;
}

/// What stands between two members' text: a line end and an indent, or a space.
struct Spacing {
  std::string line_end, indent;
};

Spacing spacing_of(const std::string& text, const std::vector<MemberScanner::Member>& members) {
  if (members.empty()) return {"\n", "  "};
  const std::size_t key = members[0].key_begin;
  const std::size_t line = text.rfind('\n', key);
  if (line == std::string::npos || text.find_first_not_of(" \t", line + 1) != key) return {"", " "};
  return {line > 0 && text[line - 1] == '\r' ? "\r\n" : "\n", text.substr(line + 1, key - line - 1)};
}

void remove_member(std::string& text, const std::string& key) {
  for (;;) {
    const MemberScanner scanner(text);
    const auto& members = scanner.members();
    std::size_t i = 0;
    while (i < members.size() && members[i].key != key) ++i;
    if (i == members.size()) return;
    // With the comma and the space before it; the first one with those after it.
    const std::size_t begin = i > 0 ? members[i - 1].value_end : members[i].key_begin;
    const std::size_t end = i == 0 && members.size() > 1 ? members[1].key_begin : members[i].value_end;
    text.erase(begin, end - begin);
  }
}

void set_member(std::string& text, const std::string& key, const Json& value) {
  const MemberScanner scanner(text);
  const auto& members = scanner.members();
  const Spacing spacing = spacing_of(text, members);
  const std::string value_text = spacing.line_end.empty() ? value.dump() : indented(value, spacing.indent);
  // The last of duplicates is the one that counts.
  for (auto member = members.rbegin(); member != members.rend(); ++member) {
    if (member->key != key) continue;
    text.replace(member->value_begin, member->value_end - member->value_begin, value_text);
    return;
  }
  const std::string line = spacing.line_end + spacing.indent + Json(key).dump() + ": " + value_text;
  if (members.empty()) {
    text.insert(scanner.closing_brace(), line + spacing.line_end);
  } else {
    text.insert(members.back().value_end, "," + line);
  }
}

void apply_edit(std::string& text, const JsonEdit& edit) {
  if (edit.value) {
    set_member(text, edit.key, *edit.value);
  } else {
    remove_member(text, edit.key);
  }
}

}  // namespace

Json parse_json(std::string_view text, const std::string& origin, const JsonLimits& limits) {
  require_user(static_cast<std::int64_t>(text.size()) <= limits.max_bytes,
               "{}: {} bytes of JSON, but at most {} are accepted here", origin, text.size(),
               limits.max_bytes);
  Builder builder(origin, limits);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

Json read_json_file(const std::filesystem::path& path, const JsonLimits& limits) {
  return parse_json(read_whole_text(path, limits.max_bytes), path.string(), limits);
}

std::string dump_json(const Json& value) {
  return value.dump(2) + "\n";
}

std::string edit_json(std::string_view text, std::span<const JsonEdit> edits, const std::string& origin) {
  const Json parsed = parse_json(text, origin, {.duplicate_keys = DuplicateKeys::last_wins});
  require_user(parsed.is_object(), "{}: expected a JSON object, found {}", origin, parsed.type_name());
  std::string result(text);
  for (const JsonEdit& edit : edits) apply_edit(result, edit);
  return result;
}

}  // namespace verne
