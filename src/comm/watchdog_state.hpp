#pragma once
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "host_calls.hpp"
#include "progress_board.hpp"
#include "progress_track.hpp"
#include "verne/comm/watchdog.hpp"

namespace verne {

/// What is watched, and the thread that looks at it.
class Watchdog::State {
 public:
  State(const MpiSession& session, double limit_s);
  ~State();
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void add(std::shared_ptr<ProgressTrack> track);
  void remove(const ProgressTrack& track);
  void add(const Communicator& communicator);
  void remove(const Communicator& communicator);

  /// Names the communicator that is made now for these ranks: the same text on all of them, and no other's.
  std::string identity_of(const std::string& name, const std::vector<std::int64_t>& members);

 private:
  using Clock = std::chrono::steady_clock;
  struct Watched {
    std::shared_ptr<ProgressTrack> track;
    ProgressSlot* slot;
    std::int64_t waiting_for = 0;  ///< the first operation in flight; 0: none
    Clock::time_point since{};
  };

  void look();
  /// Shows this rank's progress to its neighbours; true where one operation has been in flight for longer
  /// than the limit.
  bool hangs(Watched& watched) const;
  std::string hang_report(const Watched& watched) const;
  [[noreturn]] void report_and_exit(const std::string& report) const;

  const double limit_s_;
  const int rank_;
  const std::string host_;
  ProgressBoard board_;
  std::shared_ptr<WatchPost> post_;
  std::map<std::string, int> made_;  ///< how many communicators had this name and these members
  std::mutex mutex_;                 ///< guards what follows
  std::condition_variable wake_;
  bool stop_ = false;
  std::vector<Watched> watched_;
  std::vector<const Communicator*> communicators_;
  std::thread thread_;
};

}  // namespace verne
