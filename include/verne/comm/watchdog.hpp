#pragma once
#include <memory>

#include "verne/comm/communicator.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/comm/mpi_session.hpp"

namespace verne {

/// How a communicator's exchanges end: in the order of their queue (NCCL), or in the wait for their Pending
/// (MPI).
enum class ExchangeEnd { in_queue_order, where_waited_for };

/// Ends a run that hangs in a collective. Each watched communicator numbers its operations on each queue and
/// notes, in the order of the queue, which ones it came to and which ones finished; so do the host groups
/// that descend from the session's world for their calls. A thread looks at these notes; it calls neither MPI
/// nor CUDA, and asks NCCL alone whether something went wrong in the background. Where an operation does not
/// finish within the limit, it prints on standard error the operation, its number, the communicator or the
/// ranks and place of a host call, and which ranks of this host came to it and which did not (ranks of other
/// hosts are named; their own watchdogs report), and ends the process with exit code 1 about a second later.
/// It does the same at once where a communicator has a fault. Ranks of a host see each other's notes through
/// shared memory; where there is none they report on themselves alone.
///   A rank that works for longer than the limit while others wait for it in a host collective looks as if it
/// hung, and so does an exchange that is posted for longer before it is waited for: the limit is larger than
/// the longest such work.
///   Communicators are used with their queues in the same order of first use on every rank.
class Watchdog {
 public:
  /// Collective over the session, which has one watchdog at a time. `limit_s` 0: nothing is watched. Outlives
  /// the communicators that it watches.
  Watchdog(const MpiSession& session, double limit_s);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// `communicator` watched; `group` is its ranks. In the same order on all of them.
  std::unique_ptr<Communicator> watch(std::unique_ptr<Communicator> communicator, const HostGroup& group,
                                      ExchangeEnd exchange_end);

  class State;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace verne
