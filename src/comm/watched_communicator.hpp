#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "progress_track.hpp"
#include "verne/comm/communicator.hpp"
#include "verne/comm/watchdog.hpp"

namespace verne {

/// Numbers and notes each operation of another communicator, on tracks of its own for each queue that it is
/// used with: the marks of two queues that do not wait for each other come in any order.
class WatchedCommunicator final : public Communicator {
 public:
  /// `members`: the group's ranks in the world.
  WatchedCommunicator(std::unique_ptr<Communicator> inner, Watchdog::State& watchdog,
                      std::vector<std::int64_t> members, ExchangeEnd exchange_end);
  ~WatchedCommunicator() override;

  Pending all_reduce(Queue& queue, const Tensor& tensor, Reduce reduce) override;
  Pending all_gather(Queue& queue, const Tensor& out, const Tensor& in) override;
  Pending reduce_scatter(Queue& queue, const Tensor& out, const Tensor& in) override;
  Pending broadcast(Queue& queue, const Tensor& tensor, int root) override;
  Pending exchange(Queue& queue, std::span<const Message> sends, std::span<const Message> receives) override;

 private:
  using Tracks = std::map<const Queue*, std::shared_ptr<ProgressTrack>>;
  enum class Numbering { alike_on_all_ranks, own };
  /// The queue's track among `tracks`, made where this is its first use.
  const std::shared_ptr<ProgressTrack>& track(Tracks& tracks, Queue& queue, Numbering numbering);
  template <class Call>
  Pending collective(Queue& queue, const char* operation, Call&& call);
  std::string peers_text(std::span<const Message> sends, std::span<const Message> receives) const;

  Watchdog::State& watchdog_;
  std::vector<std::int64_t> members_;
  std::string identity_;
  ExchangeEnd exchange_end_;
  Tracks collectives_, exchanges_;
  std::unique_ptr<Communicator> inner_;
};

}  // namespace verne
