#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "verne/train/step_record.hpp"

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

  /// What this rank was asked, for the others to hear: see StepRecords.
  void add_to(Signals& signals) const;
  /// What all ranks together were asked, for example "SIGUSR1" or "run.time_limit_s"; nothing where none was.
  static std::optional<std::string> reason(const Signals& signals);

 private:
  std::chrono::steady_clock::time_point start_;
  std::int64_t time_limit_s_;
};

}  // namespace verne
