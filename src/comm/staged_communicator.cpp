#include "verne/comm/staged_communicator.hpp"

#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include "collective_check.hpp"
#include "verne/base/checked.hpp"

namespace verne {
namespace {

/// Host memory of a round.
constexpr std::int64_t kStagingBytes = std::int64_t{32} << 20;
constexpr std::int64_t kAlignment = 256;

/// A contiguous tensor as a vector.
Tensor flat(const Tensor& tensor) {
  return tensor.view({tensor.count()});
}

std::span<std::byte> host_bytes(const Tensor& host) {
  return {host.raw(), static_cast<std::size_t>(host.bytes())};
}

}  // namespace

/// Host memory of exchanges. A block is used again once the copies out of it have passed.
class StagedCommunicator::MessageMemory {
 public:
  MessageMemory() = default;
  ~MessageMemory() {
    if (std::uncaught_exceptions() > 0) return;
    for (const Block& block : idle_) block.free.wait_on_host();
  }
  MessageMemory(const MessageMemory&) = delete;
  MessageMemory& operator=(const MessageMemory&) = delete;

  HostBuffer take(Queue& queue, std::int64_t bytes) {
    for (auto block = idle_.begin(); block != idle_.end(); ++block) {
      if (!block->free.passed()) continue;
      HostBuffer memory = std::move(block->memory);
      idle_.erase(block);
      if (std::ssize(memory.bytes()) >= bytes) return memory;
      break;  // too small: a larger one takes its place
    }
    return HostBuffer(queue, bytes);
  }
  void give_back(HostBuffer memory, Event free) { idle_.push_back({std::move(memory), std::move(free)}); }

  /// An exchange on its way.
  class Exchange;

 private:
  struct Block {
    HostBuffer memory;
    Event free;
  };
  std::vector<Block> idle_;
};

class StagedCommunicator::MessageMemory::Exchange final : public Event::State {
 public:
  Exchange(Queue& queue, std::shared_ptr<MessageMemory> owner, HostBuffer memory, Pending messages,
           std::vector<std::pair<Tensor, Tensor>> arriving)
      : queue_(queue),
        owner_(std::move(owner)),
        memory_(std::move(memory)),
        messages_(std::move(messages)),
        arriving_(std::move(arriving)) {}

  void hold(Queue& consumer) override {
    complete();
    consumer.wait(copied_);
  }
  void wait_on_host() override {
    complete();
    copied_.wait_on_host();
  }
  bool passed() override {
    if (messages_.live() && !messages_.passed()) return false;
    complete();
    return copied_.passed();
  }

 private:
  void complete() {
    if (!messages_.live()) return;
    messages_.wait_on_host();
    for (const auto& [device, host] : arriving_) queue_.copy_from_host(device, host_bytes(host));
    if (!arriving_.empty()) copied_ = queue_.record();
    owner_->give_back(std::move(memory_), arriving_.empty() ? Event() : queue_.record());
  }

  Queue& queue_;
  std::shared_ptr<MessageMemory> owner_;
  HostBuffer memory_;
  Pending messages_;                                 // gone before the memory is
  std::vector<std::pair<Tensor, Tensor>> arriving_;  ///< device, host
  Event copied_;
};

StagedCommunicator::StagedCommunicator(std::string name, const HostGroup& group)
    : Communicator(std::move(name), group.rank(), group.size()),
      mpi_(this->name(), group),
      message_memory_(std::make_shared<MessageMemory>()) {}

StagedCommunicator::~StagedCommunicator() {
  // A copy may still read from here.
  if (std::uncaught_exceptions() == 0) staging_free_.wait_on_host();
}

void StagedCommunicator::in_rounds(
    Queue& queue, DType dtype, std::int64_t count, std::int64_t ranks,
    const std::function<void(const Tensor&, std::int64_t, std::int64_t)>& round) {
  const std::int64_t most = std::max<std::int64_t>(1, kStagingBytes / bytes_of(dtype, ranks));
  for (std::int64_t begin = 0; begin < count; begin += most) {
    const std::int64_t length = std::min(most, count - begin);
    const std::int64_t bytes = bytes_of(dtype, ranks * length);
    staging_free_.wait_on_host();
    if (bytes > std::ssize(staging_.bytes())) staging_ = HostBuffer(queue, bytes);
    round(Tensor(staging_.bytes().data(), dtype, {ranks * length}), begin, length);
    staging_free_ = queue.record();
  }
}

Pending StagedCommunicator::all_reduce(Queue& queue, const Tensor& tensor, Reduce reduce) {
  check_all_reduce(*this, tensor, reduce);
  check_queue(*this, queue, QueueKind::cuda);
  const Tensor whole = flat(tensor);
  in_rounds(queue, tensor.dtype(), tensor.count(), 1,
            [&](const Tensor& staged, std::int64_t begin, std::int64_t length) {
              queue.copy_to_host(host_bytes(staged), whole.rows(begin, length));
              queue.synchronize();
              mpi_.all_reduce(host_, staged, reduce).wait(host_);
              queue.copy_from_host(whole.rows(begin, length), host_bytes(staged));
            });
  return Pending(queue.record(), "all_reduce");
}

Pending StagedCommunicator::all_gather(Queue& queue, const Tensor& out, const Tensor& in) {
  check_all_gather(*this, out, in);
  check_queue(*this, queue, QueueKind::cuda);
  const Tensor whole = flat(out), part = flat(in);
  const std::int64_t count = in.count();
  in_rounds(queue, in.dtype(), count, size(),
            [&](const Tensor& staged, std::int64_t begin, std::int64_t length) {
              const Tensor own = staged.rows(rank() * length, length);
              queue.copy_to_host(host_bytes(own), part.rows(begin, length));
              queue.synchronize();
              mpi_.all_gather(host_, staged, own).wait(host_);
              for (std::int64_t r = 0; r < size(); ++r)
                queue.copy_from_host(whole.rows(r * count + begin, length),
                                     host_bytes(staged.rows(r * length, length)));
            });
  return Pending(queue.record(), "all_gather");
}

Pending StagedCommunicator::reduce_scatter(Queue& queue, const Tensor& out, const Tensor& in) {
  check_reduce_scatter(*this, out, in);
  check_queue(*this, queue, QueueKind::cuda);
  const Tensor whole = flat(in), part = flat(out);
  const std::int64_t count = out.count();
  in_rounds(queue, in.dtype(), count, size(),
            [&](const Tensor& staged, std::int64_t begin, std::int64_t length) {
              for (std::int64_t r = 0; r < size(); ++r)
                queue.copy_to_host(host_bytes(staged.rows(r * length, length)),
                                   whole.rows(r * count + begin, length));
              queue.synchronize();
              const Tensor own = staged.rows(rank() * length, length);
              mpi_.reduce_scatter(host_, own, staged).wait(host_);
              queue.copy_from_host(part.rows(begin, length), host_bytes(own));
            });
  return Pending(queue.record(), "reduce_scatter");
}

Pending StagedCommunicator::broadcast(Queue& queue, const Tensor& tensor, int root) {
  check_broadcast(*this, tensor, root);
  check_queue(*this, queue, QueueKind::cuda);
  const Tensor whole = flat(tensor);
  in_rounds(queue, tensor.dtype(), tensor.count(), 1,
            [&](const Tensor& staged, std::int64_t begin, std::int64_t length) {
              if (rank() == root) {
                queue.copy_to_host(host_bytes(staged), whole.rows(begin, length));
                queue.synchronize();
              }
              mpi_.broadcast(host_, staged, root).wait(host_);
              if (rank() != root) queue.copy_from_host(whole.rows(begin, length), host_bytes(staged));
            });
  return Pending(queue.record(), "broadcast");
}

Pending StagedCommunicator::exchange(Queue& queue, std::span<const Message> sends,
                                     std::span<const Message> receives) {
  check_exchange(*this, sends, receives);
  check_queue(*this, queue, QueueKind::cuda);
  std::int64_t total = 0;
  for (const std::span<const Message> messages : {sends, receives}) {
    for (const Message& message : messages) total += round_up(message.tensor.bytes(), kAlignment);
  }
  HostBuffer memory = message_memory_->take(queue, total);
  std::int64_t used = 0;
  const auto staged = [&](const Message& message) {
    const Tensor host(memory.bytes().data() + used, message.tensor.dtype(), {message.tensor.count()});
    used += round_up(message.tensor.bytes(), kAlignment);
    return host;
  };
  std::vector<Message> leaving, coming;
  for (const Message& message : sends) {
    leaving.push_back({staged(message), message.peer});
    queue.copy_to_host(host_bytes(leaving.back().tensor), message.tensor);
  }
  if (!sends.empty()) queue.synchronize();
  std::vector<std::pair<Tensor, Tensor>> arriving;
  for (const Message& message : receives) {
    coming.push_back({staged(message), message.peer});
    arriving.emplace_back(flat(message.tensor), coming.back().tensor);
  }
  Pending messages = mpi_.exchange(host_, leaving, coming);
  return Pending(Event(std::make_unique<MessageMemory::Exchange>(queue, message_memory_, std::move(memory),
                                                                 std::move(messages), std::move(arriving))),
                 "exchange");
}

}  // namespace verne
