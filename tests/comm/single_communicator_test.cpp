#include "verne/comm/single_communicator.hpp"

#include <gtest/gtest.h>

#include "collective_cases.hpp"
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
  communicator->all_reduce(queue, in.tensor(), Reduce::sum);
  communicator->broadcast(queue, in.tensor(), 0);
  communicator->all_gather(queue, in.tensor(), in.tensor());
  expect_same(downloaded<float>(queue, in.tensor()), values, "in place");
  EXPECT_THROW(communicator->send(queue, in.tensor(), 0), InternalError);
  EXPECT_THROW(communicator->receive(queue, in.tensor(), 1), InternalError);
}

}  // namespace
}  // namespace verne
