#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

struct ompi_communicator_t;  // MPI_Comm without MPI's header

namespace verne {

/// Collectives on host data among the ranks of a group, through MPI. A group of one rank needs no MPI at all.
/// Every call is collective over the group and blocks. Calls throw SystemError naming the call where MPI
/// fails. All calls must come from the thread that initialised MPI, in the same order on every rank.
class HostGroup {
 public:
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

  void barrier() const;
  /// The ranks that give the same `color` form a group, ordered by `key`.
  HostGroup split(int color, int key) const;

  void broadcast(std::span<std::byte> data, int root) const;
  std::string broadcast_text(std::string text, int root) const;
  /// Every rank's text, by rank.
  std::vector<std::string> all_gather_text(const std::string& text) const;
  std::vector<std::int64_t> all_gather(std::int64_t value) const;
  std::int64_t sum(std::int64_t value) const;
  std::int64_t min(std::int64_t value) const;
  std::int64_t max(std::int64_t value) const;
  double sum(double value) const;
  double max(double value) const;
  void sum(std::span<double> values) const;  ///< elementwise, in place
  void sum(std::span<std::int64_t> values) const;

  /// Sends `to[r]` to rank r and returns what each rank sent here, by rank. Any sizes (pieces under 2 GiB
  /// inside).
  std::vector<std::vector<std::byte>> all_to_all(const std::vector<std::vector<std::byte>>& to) const;

 private:
  ompi_communicator_t* communicator_ = nullptr;
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace verne
