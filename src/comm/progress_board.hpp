#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "verne/comm/host_group.hpp"

namespace verne {

/// What one rank tells of one sequence of operations.
struct alignas(64) ProgressSlot {
  std::atomic<std::uint64_t> key{0};     ///< which sequence; 0: free
  std::atomic<std::int64_t> arrived{0};  ///< number of the last operation that the rank came to
  std::atomic<std::int64_t> done{0};     ///< number of the last one that finished

  /// The operation that it is in, shortened; "" where it is in none.
  void tell_operation(std::string_view operation);
  std::string operation() const;

 private:
  std::array<std::atomic<std::uint64_t>, 5> text_{};
};

/// Slots of all ranks of a node in shared memory; of this rank alone where there is none.
class ProgressBoard {
 public:
  static constexpr std::int64_t kSlots = 256;  ///< of each rank

  /// Collective over `node`. `world_rank` is the caller's.
  ProgressBoard(const HostGroup& node, int world_rank);
  ~ProgressBoard();
  ProgressBoard(const ProgressBoard&) = delete;
  ProgressBoard& operator=(const ProgressBoard&) = delete;

  /// This rank's own.
  std::span<ProgressSlot> own();

  struct Arrival {
    std::int64_t number = 0;  ///< of the last operation that the rank came to; 0 where it has not begun any
    std::string operation;    ///< that it is in
  };
  /// How far a rank has come with sequence `key`; no value where the board does not show that rank.
  std::optional<Arrival> arrival(std::int64_t world_rank, std::uint64_t key) const;

 private:
  std::span<ProgressSlot> slots_;
  std::vector<std::int64_t> world_ranks_;  ///< whose slots they are, by row
  std::size_t own_row_ = 0;
};

}  // namespace verne
