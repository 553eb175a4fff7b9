#include "verne/train/stop_request.hpp"

#include <fmt/format.h>
#include <signal.h>

#include <atomic>

#include "verne/base/error.hpp"

namespace verne {
namespace {

// A signal handler has no argument of its own: the one word it may write is here, and only StopRequest reads
// it.
std::atomic<int> arrived_signal{0};
static_assert(std::atomic<int>::is_always_lock_free);

constexpr int kSignals[] = {SIGTERM, SIGINT, SIGUSR1};
constexpr std::int64_t kTimeLimit = 1 << 16;  // above every signal's number

void remember(int signal) {
  arrived_signal.store(signal);
}

std::string name_of(std::int64_t code) {
  switch (code) {
    case SIGTERM:
      return "SIGTERM";
    case SIGINT:
      return "SIGINT";
    case SIGUSR1:
      return "SIGUSR1";
    case kTimeLimit:
      return "run.time_limit_s";
    default:
      return fmt::format("signal {}", code);
  }
}

}  // namespace

StopRequest::StopRequest(std::int64_t time_limit_s)
    : start_(std::chrono::steady_clock::now()), time_limit_s_(time_limit_s) {
  arrived_signal.store(0);
  for (const int signal : kSignals) {
    struct ::sigaction action {};
    action.sa_handler = &remember;
    action.sa_flags = SA_RESTART | (signal == SIGINT ? SA_RESETHAND : 0);
    require(::sigaction(signal, &action, nullptr) == 0, "sigaction({}) failed", signal);
  }
}

StopRequest::~StopRequest() {
  for (const int signal : kSignals) ::signal(signal, SIG_DFL);
}

bool StopRequest::agreed(const HostGroup& group) {
  std::int64_t code = arrived_signal.load();
  const auto running = std::chrono::steady_clock::now() - start_;
  if (code == 0 && time_limit_s_ > 0 && running >= std::chrono::seconds(time_limit_s_)) code = kTimeLimit;
  code = group.max(code);
  if (code != 0) reason_ = name_of(code);
  return code != 0;
}

}  // namespace verne
