#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <source_location>
#include <span>
#include <string>
#include <vector>

struct ompi_communicator_t;  // MPI_Comm without MPI's header

namespace verne {

class HostCalls;

/// Collectives on host data among the ranks of a group, through MPI. A group of one rank needs no MPI at all.
/// Every call is collective over the group and blocks. Calls throw SystemError naming the call where MPI
/// fails. All calls must come from the thread that initialised MPI, in the same order on every rank. Calls
/// that begin with a word of each rank (the reductions of one value, all_gather, all_gather_text, all_to_all)
/// must come from the same place in the code too, which is `caller`: where two that differ meet, or a barrier
/// and one of them, all ranks throw an InternalError that names them, instead of taking each other's words
/// for answers. Groups that descend from a session's are watched while it has a Watchdog.
class HostGroup {
 public:
  using Caller = std::source_location;

  /// A group of this process alone.
  HostGroup();
  /// Duplicates the communicator.
  explicit HostGroup(ompi_communicator_t* communicator);
  ~HostGroup();
  HostGroup(HostGroup&&) noexcept;
  HostGroup& operator=(HostGroup&&) noexcept;

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// The MPI communicator; nullptr in a group made without MPI.
  ompi_communicator_t* communicator() const { return communicator_; }
  /// The members' ranks in the world, by rank; {0} in a group made without MPI. Not collective.
  std::vector<std::int64_t> world_ranks() const;

  void barrier(Caller caller = Caller::current()) const;
  /// The ranks that give the same `color` form a group, ordered by `key`.
  HostGroup split(int color, int key, Caller caller = Caller::current()) const;
  /// The ranks that share memory with this one, in this group's order.
  HostGroup split_by_node(Caller caller = Caller::current()) const;

  void broadcast(std::span<std::byte> data, int root, Caller caller = Caller::current()) const;
  std::string broadcast_text(std::string text, int root, Caller caller = Caller::current()) const;
  /// Every rank's text, by rank.
  std::vector<std::string> all_gather_text(const std::string& text, Caller caller = Caller::current()) const;
  std::vector<std::int64_t> all_gather(std::int64_t value, Caller caller = Caller::current()) const;
  std::int64_t sum(std::int64_t value, Caller caller = Caller::current()) const;
  std::int64_t min(std::int64_t value, Caller caller = Caller::current()) const;
  std::int64_t max(std::int64_t value, Caller caller = Caller::current()) const;
  double sum(double value, Caller caller = Caller::current()) const;
  double max(double value, Caller caller = Caller::current()) const;  ///< NaN where any is
  /// Elementwise, in place; doubles are added in rank order.
  void sum(std::span<double> values, Caller caller = Caller::current()) const;
  void sum(std::span<std::int64_t> values, Caller caller = Caller::current()) const;

  /// Sends `to[r]` to rank r and returns what each rank sent here, by rank. Any sizes (pieces under 2 GiB
  /// inside).
  std::vector<std::vector<std::byte>> all_to_all(const std::vector<std::vector<std::byte>>& to,
                                                 Caller caller = Caller::current()) const;

  /// Runs another library's blocking collective among these ranks as one of the group's calls, so that it is
  /// watched as they are. `name` is a literal.
  void collective(const char* name, const std::function<void()>& work,
                  Caller caller = Caller::current()) const;

  /// Of a group with MPI: what numbers and watches its calls.
  HostCalls* calls() const { return calls_.get(); }

 private:
  HostGroup(ompi_communicator_t* owned, std::unique_ptr<HostCalls> calls);

  ompi_communicator_t* communicator_ = nullptr;
  int rank_ = 0;
  int size_ = 1;
  std::unique_ptr<HostCalls> calls_;
};

}  // namespace verne
