#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "verne/train/metrics_csv.hpp"

namespace verne {

/// "1:02:03", "2 d 01:02:03"
std::string format_duration(double seconds);

/// The progress line of a run: step, loss, tokens/s, time left.
class Progress {
 public:
  using Clock = std::chrono::steady_clock;
  /// `first_step`: the first step that this process will run; `last_step`: the run's last.
  Progress(std::int64_t first_step, std::int64_t last_step, Clock::time_point start = Clock::now());
  /// The line for a logged step. Time left comes from the mean time of this process's steps, validations and
  /// checkpoints included; its first step, which warms up, is left out once there are others.
  std::string line(const MetricsRow& row, Clock::time_point now = Clock::now());

 private:
  std::int64_t first_step_, last_step_;
  Clock::time_point start_;
  std::optional<Clock::time_point> warm_;  ///< when the first logged step had ended
  std::int64_t warm_step_ = 0;
};

}  // namespace verne
