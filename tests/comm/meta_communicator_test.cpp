#include "verne/comm/meta_communicator.hpp"

#include <gtest/gtest.h>

#include "verne/tensor/meta_queue.hpp"

namespace verne {
namespace {

TEST(MetaCommunicator, RecordsTheBytesOfRings) {
  MetaQueue queue;
  MetaCommunicator data("data", 3, 8);
  const Buffer whole(queue, DType::f32, {8, 100}, MemoryKind::communication);
  const Buffer part(queue, DType::f32, {100}, MemoryKind::communication);
  data.all_reduce(queue, whole.tensor(), Reduce::sum).wait(queue);
  data.all_gather(queue, whole.tensor(), part.tensor()).wait(queue);
  data.reduce_scatter(queue, part.tensor(), whole.tensor()).wait(queue);
  data.reduce_scatter(queue, part.tensor(), whole.tensor()).wait(queue);
  data.broadcast(queue, part.tensor(), 7).wait(queue);
  const Tensor half = part.tensor().rows(0, 50);
  const std::vector<Communicator::Message> sends = {{half, 4}, {half, 2}},
                                           receives = {{part.tensor(), 2}, {half, 1}};
  data.exchange(queue, sends, receives).wait(queue);
  data.exchange(queue, receives, {}).wait(queue);
  data.exchange(queue, {}, {}).wait(queue);
  const auto bytes = [&](const char* operation) { return queue.operations().at(operation).cost.bytes; };
  EXPECT_EQ(bytes("AllReduce"), 2 * 3200 * 7 / 8.0);
  EXPECT_EQ(bytes("AllGather"), 3200 * 7 / 8.0);
  EXPECT_EQ(bytes("ReduceScatter"), 2 * 3200 * 7 / 8.0);
  EXPECT_EQ(queue.operations().at("ReduceScatter").calls, 2);
  EXPECT_EQ(bytes("Broadcast"), 400);
  EXPECT_EQ(bytes("Exchange"), 600 + 600);
  EXPECT_EQ(queue.operations().at("Exchange").calls, 3);
}

TEST(MetaCommunicator, ChecksItsArguments) {
  MetaQueue queue;
  MetaCommunicator data("data", 0, 2);
  const Buffer buffer(queue, DType::f32, {8}, MemoryKind::communication);
  EXPECT_THROW(data.all_gather(queue, buffer.tensor(), buffer.tensor()).wait(queue), InternalError);
  const Communicator::Message self{buffer.tensor(), 0};
  EXPECT_THROW(data.exchange(queue, {}, std::span(&self, 1)).wait(queue), InternalError);
  EXPECT_THROW(MetaCommunicator("data", 2, 2), InternalError);
}

}  // namespace
}  // namespace verne
