#include "verne/train/stop_request.hpp"

#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

namespace verne {
namespace {

TEST(StopRequest, CatchesEachSignal) {
  const HostGroup alone;
  for (const auto& [signal, name] :
       {std::pair{SIGTERM, "SIGTERM"}, {SIGINT, "SIGINT"}, {SIGUSR1, "SIGUSR1"}}) {
    StopRequest request(0);
    EXPECT_FALSE(request.agreed(alone));
    ::raise(signal);
    EXPECT_TRUE(request.agreed(alone));
    EXPECT_TRUE(request.agreed(alone));
    EXPECT_EQ(request.reason(), name);
  }
  StopRequest forgets(0);
  EXPECT_FALSE(forgets.agreed(alone));
}

TEST(StopRequest, TimeLimit) {
  const HostGroup alone;
  StopRequest request(1);
  EXPECT_FALSE(request.agreed(alone));
  std::this_thread::sleep_for(std::chrono::milliseconds(1050));
  EXPECT_TRUE(request.agreed(alone));
  EXPECT_EQ(request.reason(), "run.time_limit_s");
}

}  // namespace
}  // namespace verne
