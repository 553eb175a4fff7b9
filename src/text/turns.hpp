#pragma once
// Conversations as the templates see them.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "verne/text/chat_template.hpp"

namespace verne {

enum class Role { system, user, assistant };
std::string_view role_name(Role role);
/// UserError on a role that is not known.
Role parse_role(const std::string& name);

struct Turn {
  Role role;
  std::string content;
  std::optional<std::string> reasoning;
};
using Turns = std::vector<Turn>;

/// UserError where there are none.
Turns read_turns(const Conversation& conversation);

std::string_view strip_newlines(std::string_view text);
std::string_view strip_leading_newlines(std::string_view text);

/// An instruction and its input, a blank line between.
std::string with_input(const std::string& instruction, const std::string& input);
/// A system message before a question, a blank line between; an empty one leaves no trace.
std::string with_system(const std::string& system, const std::string& question);

/// What an assistant's turn thinks, and what it answers.
struct Answer {
  std::string reasoning, content;
};
/// Takes a think block out of the content where the turn has no reasoning of its own.
Answer split_reasoning(const Turn& turn);

/// Index of the last question of the first `count` turns that is not wholly a tool's response, else the last
/// of them.
std::int64_t last_query(const Turns& turns, std::int64_t count);

}  // namespace verne
