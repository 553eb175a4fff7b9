#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "verne/comm/host_group.hpp"

namespace verne {

/// Messages between two ranks of a group, both of which know of them and of their size. Nothing here is
/// collective, and nothing waits but `wait`. Messages from one rank to another arrive in the order in which
/// they were sent; a rank sends none to itself. They move on while a call of this class or of MPI runs.
/// Calls come from the thread that initialised MPI; SystemError where MPI fails.
class HostMessages {
 public:
  /// The group must outlive this. One set at a time is in use among a group's ranks.
  explicit HostMessages(const HostGroup& group);
  /// Gives up what is under way.
  ~HostMessages();
  HostMessages(const HostMessages&) = delete;
  HostMessages& operator=(const HostMessages&) = delete;

  /// Begins a message; its memory is not touched until its number is among the finished. Less than 2 GiB.
  std::int64_t send(int to, std::span<const std::byte> data);
  std::int64_t receive(int from, std::span<std::byte> data);

  /// Numbers of messages that have finished since the last call. `wait` returns once there is one, or at once
  /// where nothing is under way. InternalError where a message is shorter than was expected.
  std::vector<std::int64_t> finished();
  std::vector<std::int64_t> wait();
  std::int64_t under_way() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace verne
