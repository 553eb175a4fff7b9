#pragma once
#include <string>

#include "verne/app/verb.hpp"

namespace verne {

std::string program_help();
/// What the verb does, and every key that it reads with its default.
std::string verb_help(Verb verb);
std::string version_text();
/// docs/deck.md
std::string deck_reference();

}  // namespace verne
