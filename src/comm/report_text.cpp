#include "report_text.hpp"

#include <fmt/format.h>

namespace verne {

std::string ranges_text(const std::vector<std::int64_t>& numbers, std::string_view separator) {
  std::string text;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : separator, numbers[i]);
    if (last > i) text += fmt::format("-{}", numbers[last]);
    i = last + 1;
  }
  return text;
}

std::string ranks_text(const std::vector<std::int64_t>& ranks) {
  return fmt::format("rank{} {}", ranks.size() == 1 ? "" : "s", ranges_text(ranks, ", "));
}

std::string place_text(std::string_view path, std::int64_t line) {
  const std::size_t name = path.rfind('/');
  if (name != std::string_view::npos && name > 0) {
    const std::size_t folder = path.rfind('/', name - 1);
    if (folder != std::string_view::npos) path.remove_prefix(folder + 1);
  }
  return fmt::format("{}:{}", path, line);
}

}  // namespace verne
