#include "verne/comm/communicator.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <stdexcept>

#include "verne/base/error.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne {
namespace {

/// Counts who waits.
struct Waits {
  int queues = 0, hosts = 0;
  bool passed = false;
};
Event counted_event(Waits& waits) {
  struct State final : Event::State {
    explicit State(Waits& of) : waits(of) {}
    void hold(Queue&) override { ++waits.queues; }
    void wait_on_host() override { ++waits.hosts; }
    bool passed() override { return waits.passed; }
    Waits& waits;
  };
  return Event(std::make_unique<State>(waits));
}

TEST(Pending, IsLiveUntilItIsWaitedFor) {
  CpuQueue queue;
  Waits waits;
  Pending nothing;
  EXPECT_FALSE(nothing.live());
  nothing.wait(queue);
  Pending first(counted_event(waits), "all_gather"), second(counted_event(waits), "all_gather");
  EXPECT_TRUE(first.live());
  EXPECT_FALSE(first.passed());
  waits.passed = true;
  EXPECT_TRUE(first.passed());
  EXPECT_TRUE(first.live());
  first.wait(queue);
  EXPECT_FALSE(first.live());
  first.wait(queue);  // another consumer's turn
  EXPECT_EQ(waits.queues, 2);
  second.wait_on_host();
  EXPECT_FALSE(second.live());
  EXPECT_EQ(waits.hosts, 1);
}

TEST(Pending, IsLiveWhereNothingIsLeftToWaitFor) {
  CpuQueue queue;
  Pending done({}, "broadcast");
  EXPECT_TRUE(done.live());
  EXPECT_TRUE(done.passed());
  done.wait(queue);
  EXPECT_FALSE(done.live());
}

TEST(Pending, MovesAndIsNotReplacedWhileItIsLive) {
  CpuQueue queue;
  Waits waits;
  Pending first(counted_event(waits), "all_reduce");
  Pending moved = std::move(first);
  EXPECT_FALSE(first.live());  // NOLINT(bugprone-use-after-move)
  EXPECT_TRUE(moved.live());
  Pending other({}, "exchange");
  try {
    moved = std::move(other);
    FAIL() << "a live one was replaced";
  } catch (const InternalError& error) {
    EXPECT_STREQ(error.what(), "a pending all_reduce is replaced before it was waited for");
  }
  EXPECT_TRUE(other.live());  // NOLINT(bugprone-use-after-move)
  moved.wait(queue);
  EXPECT_EQ(waits.queues, 1);
  moved = std::move(other);
  EXPECT_TRUE(moved.live());
  moved.wait(queue);
  EXPECT_EQ(waits.queues, 1);
}

TEST(PendingDeathTest, IsNotForgotten) {
  EXPECT_DEATH({ Pending forgotten({}, "reduce_scatter"); },
               "internal error: a pending reduce_scatter was destroyed before it was waited for");
}

TEST(Pending, IsDroppedWhileAnErrorUnwinds) {
  Waits waits;
  EXPECT_THROW(
      {
        const Pending dropped(counted_event(waits), "exchange");
        throw std::runtime_error("something else went wrong");
      },
      std::runtime_error);
  EXPECT_EQ(waits.queues + waits.hosts, 0);
}

}  // namespace
}  // namespace verne
