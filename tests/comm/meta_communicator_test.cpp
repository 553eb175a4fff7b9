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
  data.all_reduce(queue, whole.tensor(), Reduce::sum);
  data.all_gather(queue, whole.tensor(), part.tensor());
  data.reduce_scatter(queue, part.tensor(), whole.tensor());
  data.reduce_scatter(queue, part.tensor(), whole.tensor());
  data.broadcast(queue, part.tensor(), 7);
  data.send(queue, part.tensor(), 4);
  data.receive(queue, part.tensor(), 2);
  const auto bytes = [&](const char* operation) { return queue.operations().at(operation).cost.bytes; };
  EXPECT_EQ(bytes("AllReduce"), 2 * 3200 * 7 / 8.0);
  EXPECT_EQ(bytes("AllGather"), 3200 * 7 / 8.0);
  EXPECT_EQ(bytes("ReduceScatter"), 2 * 3200 * 7 / 8.0);
  EXPECT_EQ(queue.operations().at("ReduceScatter").calls, 2);
  EXPECT_EQ(bytes("Broadcast"), 400);
  EXPECT_EQ(bytes("Send"), 400);
  EXPECT_EQ(bytes("Receive"), 400);
}

TEST(MetaCommunicator, ChecksItsArguments) {
  MetaQueue queue;
  MetaCommunicator data("data", 0, 2);
  const Buffer buffer(queue, DType::f32, {8}, MemoryKind::communication);
  EXPECT_THROW(data.all_gather(queue, buffer.tensor(), buffer.tensor()), InternalError);
  EXPECT_THROW(MetaCommunicator("data", 2, 2), InternalError);
}

}  // namespace
}  // namespace verne
