#include "verne/train/stop_request.hpp"

#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

namespace verne {
namespace {

std::optional<std::string> asked(const StopRequest& request) {
  Signals signals{};
  request.add_to(signals);
  return StopRequest::reason(signals);
}

TEST(StopRequest, CatchesEachSignal) {
  for (const auto& [signal, name] :
       {std::pair{SIGTERM, "SIGTERM"}, {SIGINT, "SIGINT"}, {SIGUSR1, "SIGUSR1"}}) {
    const StopRequest request(0);
    EXPECT_EQ(asked(request), std::nullopt);
    ::raise(signal);
    EXPECT_EQ(asked(request), name);
    EXPECT_EQ(asked(request), name);
  }
  const StopRequest forgets(0);
  EXPECT_EQ(asked(forgets), std::nullopt);
}

TEST(StopRequest, TimeLimit) {
  const StopRequest request(1);
  EXPECT_EQ(asked(request), std::nullopt);
  std::this_thread::sleep_for(std::chrono::milliseconds(1050));
  EXPECT_EQ(asked(request), "run.time_limit_s");
}

}  // namespace
}  // namespace verne
