#pragma once
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace verne {

/// Processors that this process may run on (its affinity mask), ascending.
std::vector<int> allowed_processors();

/// Processors' worth of time that the control groups of this process allow (v1 or v2); no value where there
/// is no limit.
std::optional<double> control_group_processors();

/// "max 100000" or "150000 100000" (quota and period in microseconds) as processors.
std::optional<double> parse_quota(std::string_view text);

/// Threads for the rank that may run on `own`, when the ranks of its node (it among them) may run on `all`:
/// each processor is shared out evenly among the ranks that may use it. `limit` is the node's control-group
/// limit.
int threads_for_rank(const std::vector<int>& own, const std::vector<std::vector<int>>& all,
                     std::optional<double> limit);

}  // namespace verne
