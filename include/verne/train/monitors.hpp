#pragma once
#include <condition_variable>
#include <deque>
#include <exception>
#include <filesystem>
#include <mutex>
#include <thread>

#include "verne/train/event_file.hpp"
#include "verne/train/metrics_csv.hpp"
#include "verne/train/progress.hpp"

namespace verne {

/// metrics.csv, the event file and the progress lines of a run, written in order by a thread of their own: a
/// slow file system holds up nobody. Only rank 0 has them.
class Monitors {
 public:
  /// Rows up to `last_step` stay (see MetricsCsv); `steps`: the run's last step.
  Monitors(const std::filesystem::path& metrics, const std::filesystem::path& directory,
           std::int64_t last_step, std::int64_t steps);
  ~Monitors();
  Monitors(const Monitors&) = delete;
  Monitors& operator=(const Monitors&) = delete;

  /// Returns at once, unless the thread is far behind. Throws what an earlier row met.
  void write(const MetricsRow& row);
  /// Returns once all rows are on disk: call it before a checkpoint is published. Throws what a row met.
  void sync();

 private:
  void serve();
  void write_now(const MetricsRow& row);
  void rethrow();

  MetricsCsv csv_;
  EventFile events_;
  Progress display_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<MetricsRow> rows_;  ///< the first one is being written
  std::exception_ptr failure_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace verne
