#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace verne {

/// Insertions, deletions, substitutions and swaps of neighbours that make `a` of `b`; upper and lower case
/// are one.
std::int64_t edit_distance(std::string_view a, std::string_view b);

/// What to write instead of a key that does not exist: a full sentence that names a known key. Knows the
/// words of NeMo, Megatron, Hugging Face, axolotl and torchtitan, with or without their section
/// ("trainer.max_steps").
std::string suggest_key(std::string_view unknown);

/// The candidate nearest to `text`.
std::string_view nearest(std::string_view text, std::span<const std::string_view> candidates);

}  // namespace verne
