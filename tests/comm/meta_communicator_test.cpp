#include "verne/comm/meta_communicator.hpp"

#include <gmock/gmock.h>

#include "verne/tensor/meta_queue.hpp"
#include "verne/tensor/race_checker.hpp"

namespace verne {
namespace {

TEST(MetaCommunicator, RecordsTheBytesOfRings) {
  MetaTrace trace;
  MetaQueue queue(trace, "compute");
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
  const auto bytes = [&](const char* operation) { return trace.operations().at(operation).cost.bytes; };
  EXPECT_EQ(bytes("AllReduce"), 2 * 3200 * 7 / 8.0);
  EXPECT_EQ(bytes("AllGather"), 3200 * 7 / 8.0);
  EXPECT_EQ(bytes("ReduceScatter"), 2 * 3200 * 7 / 8.0);
  EXPECT_EQ(trace.operations().at("ReduceScatter").calls, 2);
  EXPECT_EQ(bytes("Broadcast"), 400);
  EXPECT_EQ(bytes("Exchange"), 600 + 600);
  EXPECT_EQ(trace.operations().at("Exchange").calls, 3);
}

TEST(MetaCommunicator, RecordsWhatThisRankReadsAndWrites) {
  MetaTrace trace(Recording::everything);
  MetaQueue queue(trace, "data");
  MetaCommunicator data("data", 3, 8);
  const Buffer whole(queue, DType::f32, {8, 100}, MemoryKind::communication);
  const Buffer part(queue, DType::f32, {100}, MemoryKind::communication);
  data.all_reduce(queue, whole.tensor(), Reduce::max).wait(queue);
  data.all_gather(queue, whole.tensor(), part.tensor()).wait(queue);
  data.reduce_scatter(queue, part.tensor(), whole.tensor()).wait(queue);
  data.broadcast(queue, part.tensor(), 7).wait(queue);
  data.broadcast(queue, part.tensor(), 3).wait(queue);
  const std::vector<Communicator::Message> sends = {{part.tensor(), 4}}, receives = {{whole.tensor(), 2}};
  data.exchange(queue, sends, receives).wait(queue);
  const auto text = [&](std::span<const Tensor> tensors) {
    std::string names;
    for (const Tensor& tensor : tensors) {
      names += tensor.raw() == whole.data() && tensor.count() == 800  ? "whole"
               : tensor.raw() == part.data() && tensor.count() == 100 ? "part"
                                                                      : "another";
    }
    return names;
  };
  std::vector<std::string> found;
  for (const TraceEntry& entry : trace.entries()) {
    if (entry.kind == TraceEntry::Kind::operation)
      found.push_back(
          fmt::format("{}: {} -> {}", entry.operation, text(trace.reads(entry)), text(trace.writes(entry))));
  }
  EXPECT_THAT(found, ::testing::ElementsAre("AllReduce: whole -> whole", "AllGather: part -> whole",
                                            "ReduceScatter: whole -> part", "Broadcast:  -> part",
                                            "Broadcast: part -> ", "Exchange: part -> whole"));
}

TEST(MetaCommunicator, PendingOrdersItsConsumer) {
  for (const int size : {1, 2}) {  // alone it copies
    MetaTrace trace(Recording::everything);
    MetaQueue compute(trace, "compute"), queue(trace, "data");
    MetaCommunicator data("data", 0, size);
    const Buffer in(compute, DType::f32, {4}, MemoryKind::communication),
        out(compute, DType::f32, {4 * size}, MemoryKind::communication),
        copy(compute, DType::f32, {4 * size}, MemoryKind::communication);
    compute.zero(in.tensor());
    queue.wait(compute.record());
    Pending gathered = data.all_gather(queue, out.tensor(), in.tensor());
    Pending reduced = data.reduce_scatter(queue, in.tensor(), out.tensor());
    gathered.wait(compute);
    compute.copy(copy.tensor(), out.tensor());
    EXPECT_THAT(find_races(trace), ::testing::IsEmpty());
    compute.zero(in.tensor());
    const auto races = find_races(trace);
    ASSERT_EQ(races.size(), 1u);
    EXPECT_EQ(races[0].later.operation, "Zero");
    EXPECT_EQ(races[0].earlier.operation, size == 1 ? "Copy" : "ReduceScatter");
    EXPECT_EQ(races[0].earlier.queue, "data");
    reduced.wait(compute);
    compute.zero(in.tensor());
    EXPECT_EQ(find_races(trace)[0].repeats, 0) << "the second Zero waited";
  }
}

TEST(MetaCommunicator, ChecksItsArguments) {
  MetaTrace trace;
  MetaQueue queue(trace, "compute");
  MetaCommunicator data("data", 0, 2);
  const Buffer buffer(queue, DType::f32, {8}, MemoryKind::communication);
  EXPECT_THROW(data.all_gather(queue, buffer.tensor(), buffer.tensor()).wait(queue), InternalError);
  const Communicator::Message self{buffer.tensor(), 0};
  EXPECT_THROW(data.exchange(queue, {}, std::span(&self, 1)).wait(queue), InternalError);
  EXPECT_THROW(MetaCommunicator("data", 2, 2), InternalError);
}

}  // namespace
}  // namespace verne
