#include "processors.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

namespace verne {
namespace {

namespace fs = std::filesystem;

std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  return value;
}

std::string first_line(const fs::path& file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return line;
}

std::optional<double> smaller(std::optional<double> a, std::optional<double> b) {
  if (a && b) return std::min(*a, *b);
  return a ? a : b;
}

/// The tightest limit from a group's folder up to the root of its hierarchy.
template <class ReadLimit>
std::optional<double> tightest(const fs::path& root, const std::string& group, const ReadLimit& read_limit) {
  std::optional<double> limit =
      read_limit(root);  // inside a container the group's own folder is often the root
  fs::path relative = fs::path(group).relative_path();
  while (!relative.empty()) {
    limit = smaller(limit, read_limit(root / relative));
    relative = relative.parent_path();
  }
  return limit;
}

std::optional<double> version_2_limit(const fs::path& folder) {
  return parse_quota(first_line(folder / "cpu.max"));
}

std::optional<double> version_1_limit(const fs::path& folder) {
  const std::string quota = first_line(folder / "cpu.cfs_quota_us"),
                    period = first_line(folder / "cpu.cfs_period_us");
  return quota.empty() || period.empty() ? std::nullopt : parse_quota(fmt::format("{} {}", quota, period));
}

}  // namespace

std::vector<int> allowed_processors() {
  std::vector<int> processors;
  // The kernel refuses a mask smaller than its own, so it grows until it fits.
  for (int capacity = 1024; capacity <= (1 << 20) && processors.empty(); capacity *= 4) {
    cpu_set_t* mask = CPU_ALLOC(capacity);
    const std::size_t bytes = CPU_ALLOC_SIZE(capacity);
    CPU_ZERO_S(bytes, mask);
    if (sched_getaffinity(0, bytes, mask) == 0) {
      for (int i = 0; i < capacity; ++i) {
        if (CPU_ISSET_S(i, bytes, mask)) processors.push_back(i);
      }
    }
    CPU_FREE(mask);
  }
  if (processors.empty()) {
    for (int i = 0; i < std::max<long>(1, sysconf(_SC_NPROCESSORS_ONLN)); ++i) processors.push_back(i);
  }
  return processors;
}

std::optional<double> parse_quota(std::string_view text) {
  const std::size_t space = text.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const auto quota = parse_number(text.substr(0, space)), period = parse_number(text.substr(space + 1));
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return *quota / *period;
}

std::optional<double> control_group_processors() {
  std::optional<double> limit;
  std::ifstream groups("/proc/self/cgroup");  // lines "hierarchy:controllers:path"
  std::string line;
  while (std::getline(groups, line)) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = fmt::format(",{},", line.substr(first + 1, second - first - 1));
    const std::string path = line.substr(second + 1);
    if (controllers == ",,") {
      limit = smaller(limit, tightest("/sys/fs/cgroup", path, version_2_limit));
    } else if (controllers.find(",cpu,") != std::string::npos) {
      limit = smaller(limit, tightest("/sys/fs/cgroup/cpu", path, version_1_limit));
    }
  }
  return limit;
}

int threads_for_rank(const std::vector<int>& own, const std::vector<std::vector<int>>& all,
                     std::optional<double> limit) {
  std::map<int, int> users;
  for (const auto& processors : all) {
    for (const int processor : processors) ++users[processor];
  }
  double share = 0;
  for (const int processor : own) share += 1.0 / std::max(1, users[processor]);
  if (limit) share = std::min(share, *limit / static_cast<double>(std::max<std::size_t>(1, all.size())));
  constexpr double kRounding = 1e-6;  // thirds that add up to just under a whole
  return std::max(1, static_cast<int>(share + kRounding));
}

}  // namespace verne
