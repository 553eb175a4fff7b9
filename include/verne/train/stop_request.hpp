#pragma once
#include <chrono>
#include <cstdint>
#include <string>

#include "verne/comm/host_group.hpp"

namespace verne {

/// Asks a run to stop in good order: catches SIGTERM, SIGINT and SIGUSR1 while it lives, and knows the run's
/// time limit. A second SIGINT ends the process at once. One object at a time in a process.
class StopRequest {
 public:
  /// `time_limit_s` counts from here; 0: none.
  explicit StopRequest(std::int64_t time_limit_s);
  ~StopRequest();
  StopRequest(const StopRequest&) = delete;
  StopRequest& operator=(const StopRequest&) = delete;

  /// Collective: whether any rank of the group was asked to stop. The same answer on every rank.
  bool agreed(const HostGroup& group);
  /// Once `agreed` has said yes: what asked, for example "SIGUSR1" or "run.time_limit_s".
  const std::string& reason() const { return reason_; }

 private:
  std::chrono::steady_clock::time_point start_;
  std::int64_t time_limit_s_;
  std::string reason_;
};

}  // namespace verne
