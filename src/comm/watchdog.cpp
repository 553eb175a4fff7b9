#include "verne/comm/watchdog.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "progress_board.hpp"
#include "progress_marks.hpp"
#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"

namespace verne {
namespace {

using Clock = std::chrono::steady_clock;

/// Before the process ends, so that the other ranks of the run get to report too.
constexpr std::chrono::milliseconds kGrace{1000};

struct OperationNote {
  std::atomic<const char*> operation{"?"};
  std::atomic<int> peer{-1};  ///< the other rank of a send or receive, in the world
};

/// The operations of one communicator that are numbered together: its collectives, or its sends and receives.
struct Track {
  static constexpr std::size_t kRemembered =
      4096;  ///< operations that may be enqueued ahead and still be named

  std::string communicator;
  std::vector<std::int64_t>
      members;  ///< world ranks; empty for sends and receives, which only two ranks number
  std::uint64_t key = 0;
  ProgressSlot* slot = nullptr;
  std::unique_ptr<ProgressMarks> marks;
  std::int64_t next = 1;
  std::array<OperationNote, kRemembered> notes{};

  // The watchdog thread's own.
  std::int64_t waiting_for = 0;
  Clock::time_point since{};

  OperationNote& note(std::int64_t number) { return notes[static_cast<std::size_t>(number) % kRemembered]; }
};

std::string ranks_text(const std::vector<std::int64_t>& ranks) {
  return fmt::format("rank{} {}", ranks.size() == 1 ? "" : "s", fmt::join(ranks, ", "));
}

std::unique_ptr<ProgressMarks> make_marks(QueueKind kind) {
#if VERNE_WITH_CUDA
  if (kind == QueueKind::cuda) return make_cuda_marks();
#endif
  require(kind == QueueKind::cpu, "no watchdog for this kind of queue");
  return std::make_unique<HostMarks>();
}

}  // namespace

struct Watchdog::State {
  State(const MpiSession& session, double limit)
      : limit_s(limit), rank(session.rank()), host(session.host()), board(session.node(), session.rank()) {
    thread = std::thread([this] { look(); });
  }
  ~State() {
    {
      std::lock_guard lock(mutex);
      stop = true;
    }
    wake.notify_all();
    thread.join();
  }

  Track& add_track(std::unique_ptr<Track> track) {
    std::lock_guard lock(mutex);
    for (ProgressSlot& slot : board.own()) {
      if (slot.key.load() != 0) continue;
      slot.arrived.store(0);
      slot.done.store(0);
      slot.key.store(track->key, std::memory_order_release);
      track->slot = &slot;
      break;
    }
    require(track->slot != nullptr, "more than {} watched communicators", ProgressBoard::kSlots / 2);
    return *tracks.emplace_back(std::move(track));
  }
  void remove_track(const Track& track) {
    std::lock_guard lock(mutex);
    track.slot->key.store(0, std::memory_order_release);
    std::erase_if(tracks, [&](const auto& one) { return one.get() == &track; });
  }

  void look() {
    const auto tick = std::chrono::duration<double>(std::clamp(limit_s / 20, 0.01, 0.5));
    std::unique_lock lock(mutex);
    while (!wake.wait_for(lock, tick, [this] { return stop; })) {
      Track* hung = nullptr;
      for (const auto& track : tracks) {
        if (!hung && hangs(*track)) hung = track.get();
      }
      if (hung) report_and_exit(*hung);
    }
  }

  /// Shows this rank's progress to its neighbours; true where one operation has been in flight for longer
  /// than the limit.
  bool hangs(Track& track) const {
    // `done` first: read the other way round, an operation that ends in between would look like one that
    // never began.
    const std::int64_t done = track.marks->done(), arrived = track.marks->arrived();
    track.slot->done.store(done, std::memory_order_release);
    track.slot->arrived.store(arrived, std::memory_order_release);
    const std::int64_t in_flight = arrived > done ? done + 1 : 0;
    if (in_flight != track.waiting_for) {
      track.waiting_for = in_flight;
      track.since = Clock::now();
    }
    return in_flight > 0 && std::chrono::duration<double>(Clock::now() - track.since).count() > limit_s;
  }

  std::string report(Track& track) const {
    const std::int64_t number = track.waiting_for;
    const OperationNote& note = track.note(number);
    const int peer = note.peer.load();
    std::string text = fmt::format("error: rank {} on {}: {} number {} on communicator {}", rank, host,
                                   note.operation.load(), number, track.communicator);
    if (peer >= 0) text += fmt::format(" with rank {}", peer);
    text += fmt::format(" did not finish within {:g} s.", limit_s);
    std::vector<std::int64_t> arrived, missing, elsewhere;
    for (const std::int64_t member : track.members) {
      const auto theirs = member == rank ? number : board.arrived(member, track.key);
      (!theirs ? elsewhere : *theirs >= number ? arrived : missing).push_back(member);
    }
    if (!arrived.empty()) text += fmt::format(" Arrived: {}.", ranks_text(arrived));
    if (!missing.empty()) text += fmt::format(" Not arrived: {}.", ranks_text(missing));
    if (!elsewhere.empty())
      text += fmt::format(" Not seen from here (look for their own reports): {}.", ranks_text(elsewhere));
    if (missing.empty() && elsewhere.empty() && !arrived.empty())
      text += " All ranks arrived: the transport hangs.";
    return text;
  }

  [[noreturn]] void report_and_exit(Track& track) const {
    fmt::print(stderr, "{}\n", report(track));
    std::fflush(stderr);
    std::this_thread::sleep_for(kGrace);
    std::_Exit(static_cast<int>(ExitCode::failure));
  }

  const double limit_s;
  const int rank;
  const std::string host;
  ProgressBoard board;
  std::mutex mutex;  ///< guards tracks and stop
  std::condition_variable wake;
  bool stop = false;
  std::list<std::unique_ptr<Track>> tracks;
  std::map<std::string, int> made;  ///< how many communicators had this name and these members
  std::thread thread;
};

namespace {

/// Numbers and notes each operation of another communicator.
class WatchedCommunicator final : public Communicator {
 public:
  WatchedCommunicator(std::unique_ptr<Communicator> inner, Watchdog::State& watchdog,
                      std::vector<std::int64_t> members, Track& collectives, Track& messages)
      : Communicator(inner->name(), inner->rank(), inner->size()),
        watchdog_(watchdog),
        members_(std::move(members)),
        collectives_(collectives),
        messages_(messages),
        inner_(std::move(inner)) {}
  ~WatchedCommunicator() override {
    inner_.reset();  // nothing writes the marks any more
    watchdog_.remove_track(collectives_);
    watchdog_.remove_track(messages_);
  }

  Pending all_reduce(Queue& queue, const Tensor& tensor, Reduce reduce) override {
    return noted(collectives_, queue, "all_reduce", -1,
                 [&] { return inner_->all_reduce(queue, tensor, reduce); });
  }
  Pending all_gather(Queue& queue, const Tensor& out, const Tensor& in) override {
    return noted(collectives_, queue, "all_gather", -1, [&] { return inner_->all_gather(queue, out, in); });
  }
  Pending reduce_scatter(Queue& queue, const Tensor& out, const Tensor& in) override {
    return noted(collectives_, queue, "reduce_scatter", -1,
                 [&] { return inner_->reduce_scatter(queue, out, in); });
  }
  Pending broadcast(Queue& queue, const Tensor& tensor, int root) override {
    return noted(collectives_, queue, "broadcast", -1,
                 [&] { return inner_->broadcast(queue, tensor, root); });
  }
  Pending send(Queue& queue, const Tensor& tensor, int to) override {
    return noted(messages_, queue, "send", to, [&] { return inner_->send(queue, tensor, to); });
  }
  Pending receive(Queue& queue, const Tensor& tensor, int from) override {
    return noted(messages_, queue, "receive", from, [&] { return inner_->receive(queue, tensor, from); });
  }

 private:
  template <class Call>
  Pending noted(Track& track, Queue& queue, const char* operation, int peer, Call&& call) {
    const std::int64_t number = track.next++;
    OperationNote& note = track.note(number);
    note.operation.store(operation);
    note.peer.store(peer >= 0 && peer < size() ? static_cast<int>(members_[static_cast<std::size_t>(peer)])
                                               : -1);
    track.marks->mark_arrived(queue, number);
    Pending pending = call();
    track.marks->mark_done(queue, number);
    return pending;
  }

  Watchdog::State& watchdog_;
  std::vector<std::int64_t> members_;
  Track& collectives_;
  Track& messages_;
  std::unique_ptr<Communicator> inner_;
};

}  // namespace

Watchdog::Watchdog(const MpiSession& session, double limit_s) {
  if (limit_s > 0) state_ = std::make_unique<State>(session, limit_s);
}
Watchdog::~Watchdog() = default;

std::unique_ptr<Communicator> Watchdog::watch(std::unique_ptr<Communicator> communicator,
                                              const HostGroup& group, const Queue& queue) {
  if (!state_) return communicator;
  std::vector<std::int64_t> members = group.all_gather(std::int64_t{state_->rank});
  const std::string identity = fmt::format("{}: {}", communicator->name(), fmt::join(members, " "));
  const int nth = ++state_->made[identity];
  const auto make_track = [&](const char* what) {
    auto track = std::make_unique<Track>();
    track->communicator = communicator->name();
    track->key = xxh3(fmt::format("{} of {}, number {}", what, identity, nth)) | 1;
    track->marks = make_marks(queue.kind());
    return track;
  };
  auto track = make_track("collectives");
  track->members = members;
  Track& collectives = state_->add_track(std::move(track));
  Track& messages = state_->add_track(make_track("messages"));
  return std::make_unique<WatchedCommunicator>(std::move(communicator), *state_, std::move(members),
                                               collectives, messages);
}

}  // namespace verne
