#include "verne/comm/single_communicator.hpp"

#include <gtest/gtest.h>

#include "collective_cases.hpp"
#include "device_like_queue.hpp"
#include "verne/comm/make_communicator.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

TEST(SingleCommunicator, CopiesWhereOutIsNotIn) {
  CpuQueue queue;
  const HostGroup alone;
  const auto communicator = make_communicator("data", alone, queue);
  EXPECT_EQ(communicator->size(), 1);
  const std::vector<float> values = input<float>(0, 71, 1);
  const Buffer in = uploaded(queue, values);
  const Buffer gathered = poisoned<float>(queue, 71), scattered = poisoned<float>(queue, 71);
  communicator->all_gather(queue, gathered.tensor(), in.tensor()).wait(queue);
  communicator->reduce_scatter(queue, scattered.tensor(), in.tensor()).wait(queue);
  expect_same(downloaded<float>(queue, gathered.tensor()), values, "all_gather");
  expect_same(downloaded<float>(queue, scattered.tensor()), values, "reduce_scatter");
  communicator->all_reduce(queue, in.tensor(), Reduce::sum).wait(queue);
  communicator->broadcast(queue, in.tensor(), 0).wait(queue);
  communicator->all_gather(queue, in.tensor(), in.tensor()).wait(queue);
  communicator->exchange(queue, {}, {}).wait(queue);
  expect_same(downloaded<float>(queue, in.tensor()), values, "in place");
  const Communicator::Message nobody{in.tensor(), 0};
  EXPECT_THROW(communicator->exchange(queue, std::span(&nobody, 1), {}).wait(queue), InternalError);
  EXPECT_THROW(communicator->exchange(queue, {}, std::span(&nobody, 1)).wait(queue), InternalError);
}

// On a device an event costs microseconds, and layers call these for every operation.
TEST(SingleCommunicator, MakesAnEventOnlyWhereItCopies) {
  struct CountingQueue final : DeviceLikeQueue {
    Event record() override {
      ++events;
      return DeviceLikeQueue::record();
    }
    int events = 0;
  } queue;
  SingleCommunicator communicator("tensor");
  const std::vector<float> values = input<float>(0, 71, 2);
  const Buffer in = uploaded(queue, values), out = poisoned<float>(queue, 71);
  communicator.all_reduce(queue, in.tensor(), Reduce::sum).wait(queue);
  communicator.broadcast(queue, in.tensor(), 0).wait(queue);
  communicator.reduce_scatter(queue, in.tensor(), in.tensor()).wait(queue);
  communicator.all_gather(queue, in.tensor(), in.tensor()).wait(queue);
  communicator.exchange(queue, {}, {}).wait(queue);
  EXPECT_EQ(queue.events, 0);
  Pending copied = communicator.all_gather(queue, out.tensor(), in.tensor());
  EXPECT_EQ(queue.events, 1);
  EXPECT_FALSE(copied.passed());
  copied.wait_on_host();
  expect_same(std::vector<float>(out.tensor().data<float>(), out.tensor().data<float>() + 71), values,
              "copy");
}

}  // namespace
}  // namespace verne
