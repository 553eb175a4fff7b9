#include "turns.hpp"

#include <algorithm>
#include <cctype>

#include "verne/base/error.hpp"

namespace verne {

std::string_view role_name(Role role) {
  return role == Role::system ? "system" : role == Role::user ? "user" : "assistant";
}

Role parse_role(const std::string& name) {
  std::string lower;
  for (const char c : name) lower.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
  const auto is_one_of = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), lower) != names.end();
  };
  if (is_one_of({"system", "developer"})) return Role::system;
  if (is_one_of({"user", "human"})) return Role::user;
  if (is_one_of({"assistant", "gpt", "model", "bot", "chatgpt"})) return Role::assistant;
  throw_user_error("a message has the role '{}'; expected system, user or assistant", name);
}

Turns read_turns(const Conversation& conversation) {
  Turns turns;
  for (const Message& message : conversation.messages)
    turns.push_back({parse_role(message.role), message.content, message.reasoning_content});
  require_user(!turns.empty(), "the conversation has no messages");
  return turns;
}

std::string_view strip_newlines(std::string_view text) {
  while (text.starts_with('\n')) text.remove_prefix(1);
  while (text.ends_with('\n')) text.remove_suffix(1);
  return text;
}
std::string_view strip_leading_newlines(std::string_view text) {
  while (text.starts_with('\n')) text.remove_prefix(1);
  return text;
}

std::string with_input(const std::string& instruction, const std::string& input) {
  return input.empty() ? instruction : instruction + "\n\n" + input;
}

std::string with_system(const std::string& system, const std::string& question) {
  return system.empty() ? question : system + "\n\n" + question;
}

Answer split_reasoning(const Turn& turn) {
  constexpr std::string_view open = "<think>", close = "</think>";
  if (turn.reasoning) return {*turn.reasoning, turn.content};
  const std::string_view content = turn.content;
  const std::size_t first = content.find(close);
  if (first == std::string_view::npos) return {"", turn.content};
  std::string_view reasoning = content.substr(0, first);
  while (reasoning.ends_with('\n')) reasoning.remove_suffix(1);
  if (const std::size_t begin = reasoning.rfind(open); begin != std::string_view::npos)
    reasoning.remove_prefix(begin + open.size());
  return {std::string(strip_leading_newlines(reasoning)),
          std::string(strip_leading_newlines(content.substr(content.rfind(close) + close.size())))};
}

/// Index of the last question of the first `count` turns that is not wholly a tool's response, else the last
/// of them.
std::int64_t last_query(const Turns& turns, std::int64_t count) {
  for (std::int64_t i = count - 1; i >= 0; --i) {
    const Turn& turn = turns[static_cast<std::size_t>(i)];
    const std::string_view content = turn.content;
    if (turn.role == Role::user &&
        !(content.starts_with("<tool_response>") && content.ends_with("</tool_response>")))
      return i;
  }
  return count - 1;
}

}  // namespace verne
