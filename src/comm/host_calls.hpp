#pragma once
#include <mpi.h>

#include <cstdint>
#include <memory>
#include <source_location>
#include <vector>

#include "progress_track.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/comm/watchdog.hpp"

namespace verne {

/// Where the groups that descend from one root find the watchdog, as long as there is one.
struct WatchPost {
  Watchdog::State* watchdog = nullptr;
};

/// What becomes of the ranks' words: `none` for calls without a value.
enum class Combine : std::int64_t { none, gather, sum, min, max, max_of_doubles };

/// What one rank brings to a one-word agreement.
struct HostWord {
  std::uint64_t tag;  ///< of the call; kMixedTag once two that differ have met
  Combine combine;
  std::int64_t bits;  ///< the value
};
inline constexpr std::uint64_t kMixedTag = 0;

/// Numbers the calls of one host group, the same on all its ranks.
class HostCalls {
 public:
  HostCalls(std::shared_ptr<WatchPost> post, std::uint64_t key);
  ~HostCalls();
  HostCalls(const HostCalls&) = delete;
  HostCalls& operator=(const HostCalls&) = delete;

  /// For the group that the next split makes of the ranks with this colour.
  std::unique_ptr<HostCalls> child(int colour);
  const std::shared_ptr<WatchPost>& post() const { return post_; }

 private:
  friend class HostCall;
  /// Where there is a watchdog.
  std::shared_ptr<ProgressTrack> track(const HostGroup& group);

  std::shared_ptr<WatchPost> post_;
  std::uint64_t key_;
  std::int64_t calls_ = 0, splits_ = 0;
  std::weak_ptr<ProgressTrack> track_;  ///< the watchdog's own
  MPI_Datatype word_type_ = MPI_DATATYPE_NULL;
  MPI_Op combine_words_ = MPI_OP_NULL;
};

/// One blocking call of a group of several ranks, from its begin to its end.
class HostCall {
 public:
  /// `name` is a literal.
  HostCall(const HostGroup& group, const char* name, std::source_location caller);
  ~HostCall();
  HostCall(const HostCall&) = delete;
  HostCall& operator=(const HostCall&) = delete;

  /// The ranks' words combined; InternalError on all of them where their calls differ.
  std::int64_t combine(Combine combine, std::int64_t bits) const;
  /// Every rank's word, by rank; InternalError on all of them where their calls differ.
  std::vector<std::int64_t> gather(std::int64_t bits) const;
  /// Word r goes to rank r; what each rank sent here, by rank. InternalError on all of them where their calls
  /// differ.
  std::vector<std::int64_t> swap(const std::vector<std::int64_t>& bits) const;

 private:
  /// The same on all ranks that are in the same call: same name, number and, where values are exchanged,
  /// place in the code.
  std::uint64_t tag(Combine combine) const;
  /// The values of words that came from all ranks.
  std::vector<std::int64_t> checked(const std::vector<HostWord>& words) const;
  /// Collective; throws InternalError with the ranks' calls.
  [[noreturn]] void refuse_mixed() const;

  const HostGroup& group_;
  HostCalls& calls_;
  const char* name_;
  std::source_location caller_;
  std::shared_ptr<ProgressTrack> track_;
  std::int64_t number_ = 0;
};

}  // namespace verne
