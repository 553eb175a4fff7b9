#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

#include "verne/base/log.hpp"

namespace verne {

/// Where the files of a run are.
class RunPaths {
 public:
  explicit RunPaths(std::filesystem::path directory) : directory_(std::move(directory)) {}
  const std::filesystem::path& directory() const { return directory_; }
  std::filesystem::path used_inputs() const { return directory_ / "used_inputs.ini"; }
  std::filesystem::path manifest() const { return directory_ / "manifest.json"; }
  std::filesystem::path metrics() const { return directory_ / "metrics.csv"; }
  std::filesystem::path log() const { return directory_ / "log.txt"; }
  /// logs/rank_00003.txt
  std::filesystem::path rank_log(int rank) const;
  std::filesystem::path checkpoints() const { return directory_ / "checkpoints"; }
  /// checkpoints/step_00000100.h5
  std::filesystem::path checkpoint(std::int64_t step) const;
  std::filesystem::path prepared_data() const { return directory_ / "data"; }
  std::filesystem::path huggingface() const { return directory_ / "hf"; }

 private:
  std::filesystem::path directory_;
};

/// Holds a directory for one run at a time. The lock is the kernel's and dies with the process, however that
/// ends.
class RunLock {
 public:
  /// Makes the directory and its parents. Waits up to `patience_s` for another process that holds it and is
  /// going away; then throws UserError naming that process. Where the file system has no locks, warns and
  /// goes on without.
  explicit RunLock(const std::filesystem::path& directory, double patience_s = 10);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int descriptor_ = -1;
};

/// From now on every record of this rank goes to its file under logs/, and rank 0's to log.txt too.
void add_run_logs(Logging& logging, const RunPaths& paths, int rank);

/// Writes a small file beside its final name, syncs it and renames it into place. Throws SystemError.
void publish_text(const std::filesystem::path& file, const std::string& text);

}  // namespace verne
