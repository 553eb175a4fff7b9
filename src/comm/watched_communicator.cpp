#include "watched_communicator.hpp"

#include <set>
#include <utility>

#include "report_text.hpp"
#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "watchdog_state.hpp"

namespace verne {
namespace {

/// Operations that a queue takes before it makes the host wait.
constexpr std::size_t kEnqueued = 1024;

/// For places that an error leaves by: the operation that it ends must not be taken for one that hangs, and
/// the error must not be lost.
void end_after_error(ProgressTrack& track, std::int64_t number) noexcept {
  try {
    track.end(number);
  } catch (const Error&) {
  }
}

template <class Call>
Pending call_noted(ProgressTrack& track, std::int64_t number, Call&& call) {
  try {
    return call();
  } catch (...) {
    end_after_error(track, number);
    throw;
  }
}

/// An exchange that ends where it is waited for.
class NotedExchange final : public Event::State {
 public:
  NotedExchange(Pending inner, std::shared_ptr<ProgressTrack> track, std::int64_t number)
      : inner_(std::move(inner)), track_(std::move(track)), number_(number) {}
  ~NotedExchange() override {
    if (!ended_) end_after_error(*track_, number_);
  }

  void hold(Queue& consumer) override {
    inner_.wait(consumer);
    end();
  }
  void wait_on_host() override {
    inner_.wait_on_host();
    end();
  }
  bool passed() override {
    const bool passed = inner_.passed();
    if (passed) end();
    return passed;
  }

 private:
  void end() {
    if (std::exchange(ended_, true)) return;
    track_->end(number_);
  }

  Pending inner_;
  std::shared_ptr<ProgressTrack> track_;
  std::int64_t number_;
  bool ended_ = false;
};

}  // namespace

WatchedCommunicator::WatchedCommunicator(std::unique_ptr<Communicator> inner, Watchdog::State& watchdog,
                                         std::vector<std::int64_t> members, ExchangeEnd exchange_end)
    : Communicator(inner->name(), inner->rank(), inner->size()),
      watchdog_(watchdog),
      members_(std::move(members)),
      identity_(watchdog.identity_of(name(), members_)),
      exchange_end_(exchange_end),
      inner_(std::move(inner)) {
  watchdog_.add(*inner_);
}

WatchedCommunicator::~WatchedCommunicator() {
  watchdog_.remove(*inner_);
  inner_.reset();  // nothing writes the marks any more
  for (const Tracks* tracks : {&collectives_, &exchanges_}) {
    for (const auto& [queue, track] : *tracks) watchdog_.remove(*track);
  }
}

// Keys agree among ranks because the order of first uses does. Exchanges are numbered by each rank alone.
const std::shared_ptr<ProgressTrack>& WatchedCommunicator::track(Tracks& tracks, Queue& queue,
                                                                 Numbering numbering) {
  if (const auto found = tracks.find(&queue); found != tracks.end()) return found->second;
  const std::size_t nth = tracks.size() + 1;
  const bool alike = numbering == Numbering::alike_on_all_ranks;
  std::string subject = fmt::format("communicator {}", name());
  if (nth > 1) subject += fmt::format(", queue {}", nth);
  const std::string key =
      fmt::format("{} of {}, queue {}", alike ? "collectives" : "exchanges", identity_, nth);
  auto track =
      std::make_shared<ProgressTrack>(std::move(subject), alike ? members_ : std::vector<std::int64_t>{},
                                      xxh3(key) | 1, make_marks(queue), kEnqueued);
  watchdog_.add(track);
  return tracks[&queue] = std::move(track);
}

template <class Call>
Pending WatchedCommunicator::collective(Queue& queue, const char* operation, Call&& call) {
  ProgressTrack& track = *this->track(collectives_, queue, Numbering::alike_on_all_ranks);
  const std::int64_t number = track.begin({.operation = operation});
  Pending pending = call_noted(track, number, call);
  track.end(number);
  return pending;
}

Pending WatchedCommunicator::all_reduce(Queue& queue, const Tensor& tensor, Reduce reduce) {
  return collective(queue, "all_reduce", [&] { return inner_->all_reduce(queue, tensor, reduce); });
}

Pending WatchedCommunicator::all_gather(Queue& queue, const Tensor& out, const Tensor& in) {
  return collective(queue, "all_gather", [&] { return inner_->all_gather(queue, out, in); });
}

Pending WatchedCommunicator::reduce_scatter(Queue& queue, const Tensor& out, const Tensor& in) {
  return collective(queue, "reduce_scatter", [&] { return inner_->reduce_scatter(queue, out, in); });
}

Pending WatchedCommunicator::broadcast(Queue& queue, const Tensor& tensor, int root) {
  return collective(queue, "broadcast", [&] { return inner_->broadcast(queue, tensor, root); });
}

Pending WatchedCommunicator::exchange(Queue& queue, std::span<const Message> sends,
                                      std::span<const Message> receives) {
  const std::shared_ptr<ProgressTrack>& track = this->track(exchanges_, queue, Numbering::own);
  const std::int64_t number = track->begin({.operation = "exchange", .peers = peers_text(sends, receives)});
  Pending pending = call_noted(*track, number, [&] { return inner_->exchange(queue, sends, receives); });
  if (exchange_end_ == ExchangeEnd::where_waited_for)
    return Pending(Event(std::make_unique<NotedExchange>(std::move(pending), track, number)), "exchange");
  track->end(number);
  return pending;
}

std::string WatchedCommunicator::peers_text(std::span<const Message> sends,
                                            std::span<const Message> receives) const {
  const auto ranks_of = [&](std::span<const Message> messages) {
    std::set<std::int64_t> ranks;
    for (const Message& message : messages) {
      if (message.peer >= 0 && message.peer < size())
        ranks.insert(members_[static_cast<std::size_t>(message.peer)]);
    }
    return std::vector<std::int64_t>(ranks.begin(), ranks.end());
  };
  std::string text;
  if (!sends.empty()) text += "to " + ranks_text(ranks_of(sends));
  if (!receives.empty()) text += (text.empty() ? "from " : ", from ") + ranks_text(ranks_of(receives));
  return text;
}

}  // namespace verne
