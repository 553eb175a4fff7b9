#include "verne/tensor/meta_trace.hpp"

#include <gmock/gmock.h>

#include "verne/tensor/arena.hpp"
#include "verne/tensor/cpu_queue.hpp"
#include "verne/tensor/meta_queue.hpp"

namespace verne {
namespace {

using ::testing::ElementsAre;
using Kind = TraceEntry::Kind;

std::vector<std::byte*> addresses(std::span<const Tensor> tensors) {
  std::vector<std::byte*> all;
  for (const Tensor& tensor : tensors) all.push_back(tensor.raw());
  return all;
}

std::vector<Kind> kinds(const MetaTrace& trace) {
  std::vector<Kind> all;
  for (const TraceEntry& entry : trace.entries()) all.push_back(entry.kind);
  return all;
}

TEST(MetaTrace, TalliesWhatAllQueuesAreGiven) {
  MetaTrace trace;
  MetaQueue compute(trace, "compute"), data(trace, "data");
  const Buffer a(compute, DType::f32, {8}, MemoryKind::batch), b(data, DType::f32, {8}, MemoryKind::batch);
  compute.record_operation("Add", {.flops = 8, .bytes = 96}, {.reads = {a.tensor()}, .writes = {b.tensor()}});
  data.record_operation("Add", {.flops = 1, .bytes = 2}, {});
  data.copy(b.tensor(), a.tensor());
  data.zero(b.tensor());
  std::array<float, 8> values{};
  values.fill(3);
  compute.upload(a.tensor(), std::span<const float>(values));
  compute.download(std::as_writable_bytes(std::span(values)), a.tensor());
  EXPECT_EQ(values[7], 0);
  const HostBuffer staging(compute, 32);
  compute.copy_from_host(a.tensor(), staging.bytes());
  compute.copy_to_host(staging.bytes(), a.tensor());

  std::map<std::string, std::pair<std::int64_t, double>> tallies;
  for (const auto& [operation, tally] : trace.operations())
    tallies[operation] = {tally.calls, tally.cost.bytes};
  const std::map<std::string, std::pair<std::int64_t, double>> expected{
      {"Add", {2, 98}},      {"Copy", {1, 64}},         {"Zero", {1, 32}},      {"Upload", {1, 32}},
      {"Download", {1, 32}}, {"CopyFromHost", {1, 32}}, {"CopyToHost", {1, 32}}};
  EXPECT_EQ(tallies, expected);
  EXPECT_EQ(trace.total().flops, 9);
  EXPECT_EQ(trace.total().bytes, 98 + 64 + 5 * 32);
  EXPECT_TRUE(trace.entries().empty()) << "only tallies were asked for";
}

TEST(MetaTrace, KeepsWhatTheHostDidInOrder) {
  MetaTrace trace(Recording::everything);
  MetaQueue compute(trace, "compute"), data(trace, "data");
  EXPECT_THAT(trace.queues(), ElementsAre("compute", "data"));
  const Buffer a(compute, DType::f32, {2, 4}, MemoryKind::batch);
  {
    const Buffer b(data, DType::bf16, {3}, MemoryKind::batch);
    compute.record_operation(
        "Cast", {.flops = 1, .bytes = 2},
        {.reads = {a.tensor(), Tensor{}, a.tensor().rows(1, 0)}, .writes = {a.tensor(), b.tensor()}});
    const Event done = compute.record();
    data.wait(done);
    EXPECT_TRUE(done.passed());
    data.synchronize();
  }
  const HostBuffer staging(data, 32);
  data.host_access(staging.bytes(4, 8), Queue::HostAccess::write);
  data.host_access(staging.bytes(), Queue::HostAccess::read);
  data.copy_from_host(a.tensor(), staging.bytes());
  data.copy_to_host(staging.bytes(), a.tensor());

  ASSERT_THAT(kinds(trace),
              ElementsAre(Kind::allocated, Kind::allocated, Kind::operation, Kind::event, Kind::wait,
                          Kind::host_wait, Kind::event, Kind::host_wait, Kind::given_back, Kind::allocated,
                          Kind::host_write, Kind::host_read, Kind::operation, Kind::operation));
  const auto entries = trace.entries();
  std::vector<std::int32_t> queues;
  for (const TraceEntry& entry : entries) queues.push_back(entry.queue);
  EXPECT_THAT(queues, ElementsAre(0, 1, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1));

  const TraceEntry& cast = entries[2];
  EXPECT_EQ(cast.operation, "Cast");
  EXPECT_EQ(cast.cost.flops, 1);
  EXPECT_EQ(cast.cost.bytes, 2);
  EXPECT_THAT(addresses(trace.reads(cast)), ElementsAre(a.data())) << "nothing of what is not there";
  ASSERT_EQ(trace.writes(cast).size(), 2u);
  EXPECT_EQ(trace.writes(cast)[0].shape(), (Shape{2, 4}));
  EXPECT_EQ(trace.writes(cast)[1].dtype(), DType::bf16);
  EXPECT_EQ(entries[4].event, 3);
  EXPECT_EQ(entries[5].event, 3);
  EXPECT_EQ(entries[7].event, 6);

  EXPECT_EQ(trace.writes(entries[8])[0].raw(), trace.writes(entries[1])[0].raw());
  EXPECT_EQ(trace.writes(entries[8])[0].bytes(), 6);
  EXPECT_THAT(addresses(trace.writes(entries[9])), ElementsAre(staging.bytes().data()));
  EXPECT_THAT(addresses(trace.writes(entries[10])), ElementsAre(staging.bytes().data() + 4));
  EXPECT_EQ(trace.writes(entries[10])[0].bytes(), 8);
  EXPECT_THAT(addresses(trace.reads(entries[11])), ElementsAre(staging.bytes().data()));
  EXPECT_THAT(addresses(trace.reads(entries[12])), ElementsAre(staging.bytes().data()));
  EXPECT_THAT(addresses(trace.writes(entries[12])), ElementsAre(a.data()));
  EXPECT_THAT(addresses(trace.reads(entries[13])), ElementsAre(a.data()));
  EXPECT_THAT(addresses(trace.writes(entries[13])), ElementsAre(staging.bytes().data()));
}

/// Queues of one trace stand for one GPU; those of another are another rank's.
TEST(MetaTrace, QueuesShareMemoryAndAddresses) {
  MetaTrace trace;
  MetaQueue compute(trace, "compute"), data(trace, "data");
  Arena endless(compute, Arena::kUnbounded, MemoryKind::activations);
  Arena other(data, Arena::kUnbounded, MemoryKind::scratch);
  const Buffer a(compute, DType::u8, {1000}, MemoryKind::weights);
  std::int64_t live_in_both = 0;
  {
    const Buffer b(data, DType::u8, {500}, MemoryKind::weights);
    const std::int64_t far = std::int64_t{1} << 40;
    const Tensor first = endless.allocate(DType::u8, {far}), second = other.allocate(DType::u8, {far});
    const std::vector<Tensor> all{a.tensor(), b.tensor(), first, second};
    for (const Tensor& x : all) {
      for (const Tensor& y : all)
        EXPECT_TRUE(&x == &y || x.raw() + x.bytes() <= y.raw() || y.raw() + y.bytes() <= x.raw());
    }
    live_in_both = trace.memory().live_total();
  }
  EXPECT_EQ(live_in_both, 1500);
  EXPECT_EQ(trace.memory().live_total(), 1000);
  EXPECT_EQ(trace.memory().peak[static_cast<std::size_t>(MemoryKind::weights)], 1500);
  EXPECT_EQ(compute.memory().live_total(), 1000);
  EXPECT_EQ(data.memory().peak_total, 500);
  EXPECT_EQ(endless.peak(), std::int64_t{1} << 40);
}

TEST(MetaTrace, SaysWhatArenasHandOut) {
  MetaTrace trace(Recording::everything);
  MetaQueue compute(trace, "compute");
  Arena arena(compute, 4096, MemoryKind::scratch);
  const Tensor kept = arena.allocate(DType::f32, {3, 5});
  {
    const ArenaScope scope(arena);
    arena.allocate(DType::bf16, {200});
    arena.allocate(DType::u8, {1});
  }
  ASSERT_THAT(kinds(trace), ElementsAre(Kind::allocated, Kind::handed_out, Kind::handed_out, Kind::handed_out,
                                        Kind::given_back));
  const Tensor handed = trace.writes(trace.entries()[1])[0], back = trace.writes(trace.entries()[4])[0];
  EXPECT_EQ(handed.raw(), kept.raw());
  EXPECT_EQ(handed.shape(), kept.shape());
  EXPECT_EQ(back.raw(), kept.raw() + 256);
  EXPECT_EQ(back.bytes(), 512 + 256);
}

TEST(MetaTrace, EventsAreForItsQueuesAlone) {
  MetaTrace trace, other;
  MetaQueue compute(trace, "compute"), foreign(other, "compute");
  CpuQueue cpu;
  const Event event = compute.record();
  EXPECT_THROW(foreign.wait(event), InternalError);
  EXPECT_THROW(cpu.wait(event), InternalError);
  EXPECT_NO_THROW(compute.wait(event));
}

}  // namespace
}  // namespace verne
