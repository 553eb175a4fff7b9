// Traces written by hand: each hazard is found where the wait is missing, and gone where it is there.
#include "verne/tensor/race_checker.hpp"

#include <gmock/gmock.h>

#include <chrono>

#include "verne/tensor/arena.hpp"
#include "verne/tensor/meta_queue.hpp"

namespace verne {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

enum class Wait : bool { missing, there };

/// A GPU's queues; operations "Write", "Read" and "Change" on them.
struct Machine {
  MetaTrace trace{Recording::everything};
  MetaQueue compute{trace, "compute"}, context{trace, "context"};

  static void write(MetaQueue& queue, const Tensor& tensor) {
    queue.record_operation("Write", {}, {.writes = {tensor}});
  }
  static void read(MetaQueue& queue, const Tensor& tensor) {
    queue.record_operation("Read", {}, {.reads = {tensor}});
  }
  static void change(MetaQueue& queue, const Tensor& tensor) {
    queue.record_operation("Change", {}, {.reads = {tensor}, .writes = {tensor}});
  }
  void order(MetaQueue& first, MetaQueue& second, Wait wait) {
    if (wait == Wait::there) second.wait(first.record());
  }
  std::vector<std::string> races() const {
    std::vector<std::string> texts;
    for (const Race& race : find_races(trace)) texts.push_back(race.text());
    return texts;
  }
};

class Races : public ::testing::TestWithParam<Wait> {
 protected:
  /// `expected` where the wait is missing, none where it is there.
  static void expect_when_missing(const Machine& machine, const std::string& expected) {
    if (GetParam() == Wait::there) {
      EXPECT_THAT(find_races(machine.trace), IsEmpty());
    } else {
      EXPECT_THAT(machine.races(), ElementsAre(expected));
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Wait, Races, ::testing::Values(Wait::missing, Wait::there),
                         [](const auto& info) { return info.param == Wait::there ? "There" : "Missing"; });

TEST_P(Races, ReadAfterWrite) {
  Machine m;
  const Buffer x(m.compute, DType::bf16, {4, 8}, MemoryKind::batch);
  m.write(m.context, x.tensor());
  m.order(m.context, m.compute, GetParam());
  m.read(m.compute, x.tensor().rows(1, 2));
  expect_when_missing(
      m,
      "Read on compute (1) reads bf16 [2, 8], which Write on context (1) writes as bf16 [4, 8], "
      "not waited for");
}

TEST_P(Races, WriteAfterRead) {
  Machine m;
  const Buffer x(m.compute, DType::f32, {4, 8}, MemoryKind::batch);
  m.write(m.compute, x.tensor());
  m.context.wait(m.compute.record());
  m.read(m.context, x.tensor());
  m.order(m.context, m.compute, GetParam());
  m.write(m.compute, x.tensor());
  expect_when_missing(m,
                      "Write on compute (2) writes fp32 [4, 8], which Read on context (1) reads as fp32 [4, "
                      "8], not waited for");
}

TEST_P(Races, WriteAfterWrite) {
  Machine m;
  const Buffer x(m.compute, DType::f32, {32}, MemoryKind::batch);
  m.write(m.context, x.tensor());
  m.order(m.context, m.compute, GetParam());
  m.write(m.compute, x.tensor().rows(31, 1));
  expect_when_missing(
      m,
      "Write on compute (1) writes fp32 [1], which Write on context (1) writes as fp32 [32], not waited for");
}

/// What is changed in place races with readers of both sides.
TEST_P(Races, ChangeInPlace) {
  Machine m;
  const Buffer x(m.compute, DType::f32, {32}, MemoryKind::batch);
  m.write(m.compute, x.tensor());
  m.context.wait(m.compute.record());
  m.change(m.context, x.tensor());
  m.order(m.context, m.compute, GetParam());
  m.read(m.compute, x.tensor());
  m.change(m.context, x.tensor().rows(0, 1));
  const auto races = m.races();
  if (GetParam() == Wait::there) {
    EXPECT_THAT(races,
                ElementsAre("Change on context (2) writes fp32 [1], which Read on compute (2) reads as "
                            "fp32 [32], not waited for"));
  } else {
    EXPECT_THAT(races,
                ElementsAre("Read on compute (2) reads fp32 [32], which Change on context (1) writes as "
                            "fp32 [32], not waited for",
                            "Change on context (2) writes fp32 [1], which Read on compute (2) reads as "
                            "fp32 [32], not waited for"));
  }
}

/// Bytes that an arena gave back and lends again: the earlier owner's queue may still be at it.
TEST_P(Races, RewoundArenaLentToAnotherQueue) {
  Machine m;
  Arena arena(m.compute, 1 << 20, MemoryKind::scratch);
  {
    const ArenaScope scope(arena);
    const Tensor partial = arena.allocate(DType::f32, {100});
    m.write(m.compute, partial);
    m.context.wait(m.compute.record());
    m.read(m.context, partial);
    m.order(m.context, m.compute, GetParam());
  }
  const Tensor next = arena.allocate(DType::bf16, {4, 10});
  m.write(m.compute, next);
  expect_when_missing(m,
                      "Write on compute (2) writes bf16 [4, 10], which Read on context (1) reads as fp32 "
                      "[100], not waited for");
}

/// The host may fill staging memory again only once the copy out of it has passed.
TEST_P(Races, HostOverwritesStaging) {
  Machine m;
  const Buffer x(m.compute, DType::u8, {64}, MemoryKind::batch);
  const HostBuffer staging(m.compute, 64);
  m.compute.host_access(staging.bytes(), Queue::HostAccess::write);
  m.compute.copy_from_host(x.tensor(), staging.bytes());
  const Event copied = m.compute.record();
  if (GetParam() == Wait::there) copied.wait_on_host();
  m.compute.host_access(staging.bytes(8, 8), Queue::HostAccess::write);
  expect_when_missing(
      m,
      "the host (2) writes u8 [8], which CopyFromHost on compute (1) reads as u8 [64], not waited "
      "for");
}

TEST_P(Races, HostReadsWhatHasNotArrived) {
  Machine m;
  const Buffer x(m.compute, DType::u8, {64}, MemoryKind::batch);
  const HostBuffer staging(m.compute, 64);
  m.write(m.compute, x.tensor());
  m.compute.copy_to_host(staging.bytes(), x.tensor());
  if (GetParam() == Wait::there) m.compute.synchronize();
  m.compute.host_access(staging.bytes(), Queue::HostAccess::read);
  expect_when_missing(
      m, "the host (1) reads u8 [64], which CopyToHost on compute (2) writes as u8 [64], not waited for");
}

/// Waits of other shapes order as well.
TEST(RaceChecker, FollowsChains) {
  Machine m;
  MetaQueue third(m.trace, "third");
  const Buffer x(m.compute, DType::f32, {8}, MemoryKind::batch);
  m.write(m.compute, x.tensor());
  m.context.wait(m.compute.record());
  third.wait(m.context.record());  // compute → context → third, nothing enqueued in between
  m.read(third, x.tensor());
  third.synchronize();  // and the host after third: what it enqueues from here on comes later
  m.write(m.context, x.tensor());
  EXPECT_TRUE(m.context.record().passed());
  m.write(m.compute, x.tensor());
  float value = 0;
  m.compute.download(std::as_writable_bytes(std::span(&value, 1)), x.tensor().rows(0, 1));
  m.write(third, x.tensor());
  EXPECT_THAT(find_races(m.trace), IsEmpty());
}

TEST(RaceChecker, AnEventIsAPointInItsQueue) {
  Machine m;
  const Buffer x(m.compute, DType::f32, {8}, MemoryKind::batch),
      y(m.compute, DType::f32, {8}, MemoryKind::batch);
  m.write(m.compute, x.tensor());
  const Event early = m.compute.record();
  m.write(m.compute, y.tensor());
  m.read(m.context, y.tensor());  // enqueued before the wait
  m.context.wait(early);
  m.read(m.context, x.tensor());
  m.read(m.context, y.tensor());  // recorded before y was written
  EXPECT_THAT(m.races(),
              ElementsAre("Read on context (1) reads fp32 [8], which Write on compute (2) writes as fp32 "
                          "[8], not waited for; 1 more"));
}

TEST(RaceChecker, ReadersNeedNotWaitForEachOther) {
  Machine m;
  const Buffer x(m.compute, DType::f32, {8}, MemoryKind::batch);
  m.write(m.compute, x.tensor());
  m.context.wait(m.compute.record());
  m.read(m.compute, x.tensor());
  m.read(m.context, x.tensor());
  m.compute.wait(m.context.record());
  m.write(m.compute, x.tensor());
  EXPECT_THAT(find_races(m.trace), IsEmpty());
  // A later reader of one queue does not stand for that of another.
  m.context.wait(m.compute.record());
  m.read(m.context, x.tensor());
  m.read(m.compute, x.tensor());
  m.write(m.compute, x.tensor());
  EXPECT_THAT(m.races(),
              ElementsAre("Write on compute (5) writes fp32 [8], which Read on context (2) reads as fp32 "
                          "[8], not waited for"));
}

TEST(RaceChecker, FindsReadsOfUndefinedMemory) {
  Machine m;
  const Buffer x(m.compute, DType::f32, {4, 8}, MemoryKind::batch);
  m.read(m.compute, x.tensor());
  m.write(m.compute, x.tensor().rows(0, 3));
  m.read(m.compute, x.tensor().rows(0, 3));
  m.read(m.compute, x.tensor().rows(2, 2));
  Arena arena(m.compute, Arena::kUnbounded, MemoryKind::scratch);
  m.write(m.compute, arena.allocate(DType::f32, {8}));
  arena.reset();
  m.change(m.compute, arena.allocate(DType::f32, {8}));  // written by the earlier owner alone
  const HostBuffer staging(m.compute, 32);
  m.compute.copy_from_host(x.tensor().rows(0, 1), staging.bytes());
  EXPECT_THAT(
      m.races(),
      ElementsAre("Read on compute (1) reads fp32 [4, 8], which nothing wrote, or not all of it; 1 more",
                  "Change on compute (6) reads fp32 [8], which nothing wrote, or not all of it",
                  "CopyFromHost on compute (7) reads u8 [32], which nothing wrote, or not all of it"));
}

TEST(RaceChecker, FindsTheUseOfWhatWasGivenBack) {
  Machine m;
  Arena arena(m.compute, Arena::kUnbounded, MemoryKind::scratch);
  const Tensor kept = arena.allocate(DType::f32, {64});
  Tensor dangling, gone;
  {
    const ArenaScope scope(arena);
    dangling = arena.allocate(DType::f32, {8});
    m.write(m.compute, dangling);
  }
  {
    const Buffer buffer(m.compute, DType::f32, {8}, MemoryKind::batch);
    gone = buffer.tensor();
  }
  m.read(m.compute, dangling);
  m.write(m.compute, gone);
  m.write(m.compute, kept);
  EXPECT_THAT(m.races(), ElementsAre("Read on compute (2) reads fp32 [8], which was given back",
                                     "Write on compute (3) writes fp32 [8], which was given back"));
}

/// The blocks q, k and v of a merged matrix belong to different queues; v and k overlap by a column.
TEST(RaceChecker, ComparesStridedTensorsExactly) {
  Machine m;
  const Buffer qkv(m.compute, DType::bf16, {100, 3, 8}, MemoryKind::batch);
  const Tensor matrix = qkv.as(DType::bf16, {100, 24});
  const Tensor q = matrix.columns(0, 8), k = matrix.columns(8, 8), v = matrix.columns(16, 8);
  m.write(m.compute, q);
  m.write(m.context, k);
  m.write(m.compute, v.view({100, 2, 4}));
  m.read(m.context, k);
  m.compute.wait(m.context.record());
  m.read(m.compute, matrix);  // written in whole, by three
  EXPECT_THAT(find_races(m.trace), IsEmpty());
  m.change(m.context, k.rows(10, 50));
  m.change(m.compute, matrix.columns(15, 2).rows(59, 1));  // k's last column in its last row
  m.write(m.compute, matrix.columns(15, 2).rows(60, 40));
  EXPECT_THAT(
      m.races(),
      ElementsAre(
          "Change on context (3) writes bf16 [50, 8], which Read on compute (3) reads as bf16 [100, 24], "
          "not waited for",
          "Change on compute (4) reads bf16 [1, 2], which Change on context (3) writes as bf16 [50, 8], "
          "not waited for"));
}

TEST(RaceChecker, KnowsWhichColumnsNobodyWrote) {
  Machine m;
  const Buffer matrix(m.compute, DType::f32, {100, 24}, MemoryKind::batch);
  m.write(m.compute, matrix.tensor().columns(0, 10));
  m.write(m.compute, matrix.tensor().columns(11, 13));
  m.read(m.compute, matrix.tensor().columns(0, 10));
  m.read(m.compute, matrix.tensor().columns(11, 13).rows(99, 1));
  EXPECT_THAT(find_races(m.trace), IsEmpty());
  m.read(m.compute, matrix.tensor().rows(99, 1));
  EXPECT_THAT(m.races(),
              ElementsAre("Read on compute (5) reads fp32 [1, 24], which nothing wrote, or not all of it"));
}

/// Host memory comes again at the address of what was released; nobody uses it any more by then.
TEST(RaceChecker, NewHostMemoryHasNoPast) {
  Machine m;
  const Buffer x(m.compute, DType::u8, {4096}, MemoryKind::batch);
  for (int i = 0; i < 8; ++i) {
    const HostBuffer staging(m.compute, 4096);
    m.compute.host_access(staging.bytes(), Queue::HostAccess::write);
    m.compute.copy_from_host(x.tensor(), staging.bytes());
  }
  EXPECT_THAT(find_races(m.trace), IsEmpty());
}

void expect_clean_and_quick(const Machine& machine) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THAT(find_races(machine.trace), IsEmpty());
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(seconds.count(), 20) << "half a second is usual, and several under a sanitizer";
}

/// A step of a large model: many layers and micro-batches on three queues, over weights that are gathered in
/// buckets and merged activations in one arena.
TEST(RaceChecker, IsQuick) {
  Machine m;
  constexpr std::int64_t kLayers = 500, kMicroBatches = 30, kWidth = 1024, kTokens = 4096;
  const Buffer weights(m.compute, DType::bf16, {kLayers * 4, kWidth}, MemoryKind::weights);
  Arena arena(m.compute, Arena::kUnbounded, MemoryKind::activations);
  const Tensor stream = arena.allocate(DType::bf16, {kTokens, kWidth});
  m.write(m.compute, stream);
  std::vector<Event> gathered;
  for (std::int64_t layer = 0; layer < kLayers; ++layer) {
    m.write(m.context, weights.tensor().rows(4 * layer, 4));
    gathered.push_back(m.context.record());
  }
  for (std::int64_t i = 0; i < kMicroBatches; ++i) {
    for (std::int64_t layer = 0; layer < kLayers; ++layer) {
      const ArenaScope scope(arena);
      const Tensor qkv = arena.allocate(DType::bf16, {kTokens, 3 * kWidth + layer % 7});
      const Tensor out = arena.allocate(DType::bf16, {kTokens + layer % 5, kWidth}).rows(0, kTokens);
      if (i == 0) m.compute.wait(gathered[static_cast<std::size_t>(layer)]);
      for (std::int64_t part = 0; part < 3; ++part) {
        m.compute.record_operation("Project", {},
                                   {.reads = {stream, weights.tensor().rows(4 * layer + part, 1)},
                                    .writes = {qkv.columns(part * kWidth, kWidth)}});
        m.change(m.compute, qkv.columns(part * kWidth, kWidth));
      }
      m.compute.record_operation(
          "Attention", {},
          {.reads = {qkv.columns(0, kWidth), qkv.columns(kWidth, kWidth), qkv.columns(2 * kWidth, kWidth)},
           .writes = {out}});
      m.context.wait(m.compute.record());
      m.change(m.context, out);
      m.compute.wait(m.context.record());
      m.compute.record_operation("Add", {}, {.reads = {stream, out}, .writes = {stream}});
    }
  }
  EXPECT_GT(m.trace.entries().size(), 200'000u);
  expect_clean_and_quick(m);
}

/// Batches of ever other sizes in one arena leave no trace of their borders where they were overwritten.
TEST(RaceChecker, IsQuickWithManySizes) {
  Machine m;
  Arena arena(m.compute, Arena::kUnbounded, MemoryKind::activations);
  for (std::int64_t i = 0; i < 40'000; ++i) {
    m.write(m.compute, arena.allocate(DType::u8, {256 * (1 + i)}));
    arena.reset();
    m.write(m.compute, arena.allocate(DType::u8, {std::int64_t{1} << 30}));
    arena.reset();
  }
  expect_clean_and_quick(m);
}

}  // namespace
}  // namespace verne
