#include "verne/comm/watchdog.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "report_text.hpp"
#include "verne/base/error.hpp"
#include "watchdog_state.hpp"
#include "watched_communicator.hpp"

namespace verne {
namespace {

/// Before the process ends, so that the other ranks of the run get to report too.
constexpr std::chrono::milliseconds kGrace{1000};

}  // namespace

Watchdog::State::State(const MpiSession& session, double limit_s)
    : limit_s_(limit_s),
      rank_(session.rank()),
      host_(session.host()),
      board_(session.node(), session.rank()),
      post_(session.world().calls()->post()) {
  require(post_->watchdog == nullptr, "a second watchdog on one MPI session");
  post_->watchdog = this;
  thread_ = std::thread([this] { look(); });
}

Watchdog::State::~State() {
  post_->watchdog = nullptr;
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Watchdog::State::add(std::shared_ptr<ProgressTrack> track) {
  std::lock_guard lock(mutex_);
  for (ProgressSlot& slot : board_.own()) {
    if (slot.key.load() != 0) continue;
    slot.arrived.store(0);
    slot.done.store(0);
    slot.tell_operation("");
    slot.key.store(track->key(), std::memory_order_release);
    watched_.push_back({.track = std::move(track), .slot = &slot});
    return;
  }
  throw InternalError(
      fmt::format("more than {} communicators and host groups are watched", ProgressBoard::kSlots));
}

void Watchdog::State::remove(const ProgressTrack& track) {
  std::lock_guard lock(mutex_);
  std::erase_if(watched_, [&](const Watched& one) {
    if (one.track.get() != &track) return false;
    one.slot->key.store(0, std::memory_order_release);
    return true;
  });
}

void Watchdog::State::add(const Communicator& communicator) {
  std::lock_guard lock(mutex_);
  communicators_.push_back(&communicator);
}

void Watchdog::State::remove(const Communicator& communicator) {
  std::lock_guard lock(mutex_);
  std::erase(communicators_, &communicator);
}

std::string Watchdog::State::identity_of(const std::string& name, const std::vector<std::int64_t>& members) {
  const std::string identity = fmt::format("{}: {}", name, fmt::join(members, " "));
  return fmt::format("{}, number {}", identity, ++made_[identity]);
}

void Watchdog::State::look() {
  const auto tick = std::chrono::duration<double>(std::clamp(limit_s_ / 20, 0.01, 0.5));
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, tick, [this] { return stop_; })) {
    const Watched* hung = nullptr;
    for (Watched& watched : watched_) {
      if (hangs(watched) && !hung) hung = &watched;
    }
    for (const Communicator* communicator : communicators_) {
      if (const std::string fault = communicator->fault(); !fault.empty())
        report_and_exit(fmt::format("error: rank {} on {}: communicator {}: {}", rank_, host_,
                                    communicator->name(), fault));
    }
    if (hung) report_and_exit(hang_report(*hung));
  }
}

bool Watchdog::State::hangs(Watched& watched) const {
  // `done` first: read the other way round, an operation that ends in between would look like one that
  // never began.
  const ProgressTrack& track = *watched.track;
  const std::int64_t done = track.marks().done(), arrived = track.marks().arrived();
  const std::int64_t in_flight = arrived > done ? done + 1 : 0;
  watched.slot->tell_operation(in_flight > 0 ? track.note(in_flight).operation : "");
  watched.slot->done.store(done, std::memory_order_release);
  watched.slot->arrived.store(arrived, std::memory_order_release);
  if (in_flight != watched.waiting_for) {
    watched.waiting_for = in_flight;
    watched.since = Clock::now();
  }
  return in_flight > 0 && std::chrono::duration<double>(Clock::now() - watched.since).count() > limit_s_;
}

std::string Watchdog::State::hang_report(const Watched& watched) const {
  const ProgressTrack& track = *watched.track;
  const std::int64_t number = watched.waiting_for;
  const OperationNote note = track.note(number);
  std::string text = fmt::format("error: rank {} on {}: {} number {} on {}", rank_, host_, note.operation,
                                 number, track.subject());
  if (!note.peers.empty()) text += fmt::format(" ({})", note.peers);
  if (note.file) text += fmt::format(" (called at {})", place_text(note.file, note.line));
  text += fmt::format(" did not finish within {:g} s.", limit_s_);
  std::vector<std::int64_t> arrived, missing, elsewhere;
  std::map<std::string, std::vector<std::int64_t>> otherwise;  // by what they came with
  for (const std::int64_t member : track.members()) {
    if (member == rank_) {
      arrived.push_back(member);
    } else if (const auto theirs = board_.arrival(member, track.key()); !theirs) {
      elsewhere.push_back(member);
    } else if (theirs->number < number) {
      missing.push_back(member);
    } else if (theirs->number == number && !theirs->operation.empty() &&
               theirs->operation != note.operation) {
      otherwise[theirs->operation].push_back(member);
    } else {
      arrived.push_back(member);
    }
  }
  if (!arrived.empty()) text += fmt::format(" Arrived: {}.", ranks_text(arrived));
  for (const auto& [operation, ranks] : otherwise)
    text += fmt::format(" Arrived with another operation, {}: {}.", operation, ranks_text(ranks));
  if (!missing.empty()) text += fmt::format(" Not arrived: {}.", ranks_text(missing));
  if (!elsewhere.empty())
    text += fmt::format(" Not seen from here (look for their own reports): {}.", ranks_text(elsewhere));
  if (arrived.size() == track.members().size() && !arrived.empty())
    text += " All ranks arrived: the transport hangs.";
  return text;
}

void Watchdog::State::report_and_exit(const std::string& report) const {
  fmt::print(stderr, "{}\n", report);
  std::fflush(stderr);
  std::this_thread::sleep_for(kGrace);
  std::_Exit(static_cast<int>(ExitCode::failure));
}

Watchdog::Watchdog(const MpiSession& session, double limit_s) {
  if (limit_s > 0) state_ = std::make_unique<State>(session, limit_s);
}
Watchdog::~Watchdog() = default;

std::unique_ptr<Communicator> Watchdog::watch(std::unique_ptr<Communicator> communicator,
                                              const HostGroup& group, ExchangeEnd exchange_end) {
  if (!state_) return communicator;
  return std::make_unique<WatchedCommunicator>(std::move(communicator), *state_, group.world_ranks(),
                                               exchange_end);
}

}  // namespace verne
