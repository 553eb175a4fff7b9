#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace verne {

/// Ascending numbers as "0-3,8", with `separator` between.
std::string ranges_text(const std::vector<std::int64_t>& numbers, std::string_view separator = ",");

/// "rank 3", "ranks 0-3, 8".
std::string ranks_text(const std::vector<std::int64_t>& ranks);

/// A place in the code, by folder and file: "comm/agree.cpp:50".
std::string place_text(std::string_view path, std::int64_t line);

}  // namespace verne
