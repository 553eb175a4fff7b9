#include "verne/train/stop_request.hpp"

#include <signal.h>

#include <atomic>

#include "verne/base/error.hpp"

namespace verne {
namespace {

// A signal handler has no argument of its own: the one word it may write is here, and only StopRequest reads
// it.
std::atomic<int> arrived_signal{0};
static_assert(std::atomic<int>::is_always_lock_free);

constexpr int kCaught[] = {SIGTERM, SIGINT, SIGUSR1};

void remember(int signal) {
  arrived_signal.store(signal);
}

}  // namespace

StopRequest::StopRequest(std::int64_t time_limit_s)
    : start_(std::chrono::steady_clock::now()), time_limit_s_(time_limit_s) {
  arrived_signal.store(0);
  for (const int signal : kCaught) {
    struct ::sigaction action {};
    action.sa_handler = &remember;
    action.sa_flags = SA_RESTART | (signal == SIGINT ? SA_RESETHAND : 0);
    require(::sigaction(signal, &action, nullptr) == 0, "sigaction({}) failed", signal);
  }
}

StopRequest::~StopRequest() {
  for (const int signal : kCaught) ::signal(signal, SIG_DFL);
}

void StopRequest::add_to(Signals& signals) const {
  const auto raise = [&](Signal signal) { signals[static_cast<std::size_t>(signal)] = 1; };
  switch (arrived_signal.load()) {
    case SIGTERM:
      return raise(Signal::terminate);
    case SIGINT:
      return raise(Signal::interrupt);
    case SIGUSR1:
      return raise(Signal::user);
    default:
      break;
  }
  const auto running = std::chrono::steady_clock::now() - start_;
  if (time_limit_s_ > 0 && running >= std::chrono::seconds(time_limit_s_)) raise(Signal::time_limit);
}

std::optional<std::string> StopRequest::reason(const Signals& signals) {
  const auto raised = [&](Signal signal) { return signals[static_cast<std::size_t>(signal)] > 0; };
  if (raised(Signal::terminate)) return "SIGTERM";
  if (raised(Signal::interrupt)) return "SIGINT";
  if (raised(Signal::user)) return "SIGUSR1";
  if (raised(Signal::time_limit)) return "run.time_limit_s";
  return std::nullopt;
}

}  // namespace verne
