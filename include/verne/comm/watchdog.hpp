#pragma once
#include <memory>

#include "verne/comm/communicator.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/comm/mpi_session.hpp"

namespace verne {

/// Ends a run that hangs in a collective. Each watched communicator numbers its operations and notes, in the
/// order of the queue, which ones it came to and which ones finished. A thread looks at these notes; it calls
/// neither MPI nor CUDA. Where an operation does not finish within the limit, it prints on standard error the
/// operation, its number, the communicator, and which ranks of this host came to it and which did not (ranks
/// of other hosts are named; their own watchdogs report), and ends the process with exit code 1 about a
/// second later. Ranks of a host see each other's notes through shared memory; where there is none they
/// report on themselves alone.
class Watchdog {
 public:
  /// Collective over the session. `limit_s` 0: nothing is watched. Outlives the communicators that it
  /// watches.
  Watchdog(const MpiSession& session, double limit_s);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// `communicator` watched; `group` is its ranks and `queue` of the kind that it is used with. Collective
  /// over `group`, in the same order on all its ranks.
  std::unique_ptr<Communicator> watch(std::unique_ptr<Communicator> communicator, const HostGroup& group,
                                      const Queue& queue);

  struct State;

 private:
  std::unique_ptr<State> state_;
};

inline constexpr double kHangLimitSeconds = 600;

}  // namespace verne
