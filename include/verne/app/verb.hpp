#pragma once
#include <optional>
#include <span>
#include <string_view>

namespace verne {

enum class Verb { prepare, tokenize, import, train, score, export_, inspect };

/// All verbs, in the order in which help shows them.
std::span<const Verb> verbs();
std::string_view name(Verb verb);
/// One line that says what it does.
std::string_view summary(Verb verb);
/// No value where no verb has that name.
std::optional<Verb> find_verb(std::string_view name);

}  // namespace verne
