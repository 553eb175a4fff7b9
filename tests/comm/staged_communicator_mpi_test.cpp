// On queues that look like a device and put everything off; nccl_mpi_test has the real ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "collective_cases.hpp"
#include "device_like_queue.hpp"
#include "verne/comm/make_communicator.hpp"
#include "verne/comm/mpi_session.hpp"
#include "verne/comm/staged_communicator.hpp"

namespace verne {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

constexpr std::int64_t kCounts[] = {0, 1, 3, 71, 4097, 70001};

template <class T>
class StagedCommunicatorTest : public ::testing::Test {
 protected:
  int rank() const { return session_.rank(); }
  int size() const { return session_.size(); }

  MpiSession session_;
  DeviceLikeQueue queue_;
  Watchdog watchdog_{session_, 100};
  /// As make_communicator makes it, but of one rank too.
  std::unique_ptr<Communicator> communicator_ =
      watchdog_.watch(std::make_unique<StagedCommunicator>("data", session_.world()), session_.world(),
                      ExchangeEnd::where_waited_for);
};

using AllTypes = ::testing::Types<float, double, bf16, std::int32_t, std::uint8_t>;
TYPED_TEST_SUITE(StagedCommunicatorTest, AllTypes);

TYPED_TEST(StagedCommunicatorTest, AllReduce) {
  for (const std::int64_t count : kCounts)
    expect_all_reduce<TypeParam>(*this->communicator_, this->queue_, count);
}
TYPED_TEST(StagedCommunicatorTest, AllGatherApartAndInPlace) {
  for (const std::int64_t count : kCounts)
    expect_all_gather<TypeParam>(*this->communicator_, this->queue_, count);
}
TYPED_TEST(StagedCommunicatorTest, ReduceScatterApartAndInPlace) {
  for (const std::int64_t count : kCounts)
    expect_reduce_scatter<TypeParam>(*this->communicator_, this->queue_, count);
}
TYPED_TEST(StagedCommunicatorTest, Broadcast) {
  for (const std::int64_t count : kCounts)
    expect_broadcast<TypeParam>(*this->communicator_, this->queue_, count);
}
TYPED_TEST(StagedCommunicatorTest, ExchangesWithAll) {
  for (const std::int64_t count : kCounts)
    expect_exchange_with_all<TypeParam>(*this->communicator_, this->queue_, count);
}

class StagedCommunicatorEdges : public StagedCommunicatorTest<float> {
 protected:
  /// What is in device memory now, without waiting for what was enqueued.
  static std::vector<float> now(const Tensor& tensor) {
    return {tensor.data<float>(), tensor.data<float>() + tensor.count()};
  }
};

TEST_F(StagedCommunicatorEdges, IsChosenByTheLink) {
  const auto made = make_communicator("data", session_.world(), queue_, nullptr, Link::staged);
  EXPECT_EQ(dynamic_cast<StagedCommunicator*>(made.get()) != nullptr, size() > 1);
  CpuQueue cpu;
  const auto on_cpu = make_communicator("data", session_.world(), cpu, nullptr, Link::staged);
  EXPECT_EQ(dynamic_cast<MpiCommunicator*>(on_cpu.get()) != nullptr, size() > 1);
}

// Longer than the host memory of a round; then on another queue, while copies of the first still wait.
TEST_F(StagedCommunicatorEdges, LongTensorsGoInRounds) {
  DeviceLikeQueue other;
  const std::int64_t part = (std::int64_t{9} << 20) / size() + 5, count = part * size();
  const auto value = [](int rank, std::int64_t i) { return static_cast<float>(i % 1021 + 3 * rank); };
  const auto sum_at = [&](std::int64_t i) {
    return static_cast<float>(size() * (i % 1021) + 3 * size() * (size() - 1) / 2);
  };
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) values[static_cast<std::size_t>(i)] = value(rank(), i);
  const Buffer reduced = uploaded(queue_, values), whole = uploaded(other, values);
  const Buffer block = poisoned<float>(other, part), gathered = poisoned<float>(queue_, count);
  Pending first = communicator_->all_reduce(queue_, reduced.tensor(), Reduce::sum);
  EXPECT_FALSE(first.passed());
  Pending second = communicator_->reduce_scatter(other, block.tensor(), whole.tensor());
  Pending third =
      communicator_->all_gather(queue_, gathered.tensor(), reduced.tensor().rows(rank() * part, part));
  first.wait_on_host();
  second.wait_on_host();
  third.wait_on_host();
  const std::vector<float> all = now(reduced.tensor()), own = now(block.tensor()),
                           again = now(gathered.tensor());
  for (std::int64_t i = 0; i < count; ++i) {
    ASSERT_EQ(all[static_cast<std::size_t>(i)], sum_at(i)) << i;
    ASSERT_EQ(again[static_cast<std::size_t>(i)], sum_at(i)) << i;
  }
  for (std::int64_t i = 0; i < part; ++i)
    ASSERT_EQ(own[static_cast<std::size_t>(i)], sum_at(rank() * part + i)) << i;
}

// The consumer's work, enqueued after the wait and before anything ran, sees what arrived.
TEST_F(StagedCommunicatorEdges, TheConsumerComesAfterTheCopiesIn) {
  if (size() == 1) GTEST_SKIP() << "nobody to exchange with";
  const int next = (rank() + 1) % size(), previous = (rank() + size() - 1) % size();
  DeviceLikeQueue consumer;
  const Buffer out = uploaded(queue_, input<float>(rank(), 300, 7)), in = poisoned<float>(queue_, 300);
  const Buffer seen = poisoned<float>(consumer, 300);
  const Communicator::Message send{out.tensor(), next}, receive{in.tensor(), previous};
  Pending pending = communicator_->exchange(queue_, std::span(&send, 1), std::span(&receive, 1));
  EXPECT_EQ(queue_.waiting(), 0);  // the copies out have run
  pending.wait(consumer);
  EXPECT_GT(queue_.waiting(), 0);  // the copies in are enqueued, and nobody waited for them
  consumer.copy(seen.tensor(), in.tensor());
  expect_same(downloaded<float>(consumer, seen.tensor()), input<float>(previous, 300, 7), "consumer");
}

TEST_F(StagedCommunicatorEdges, AnExchangeDoesNotWaitForTheOtherSide) {
  if (size() == 1) GTEST_SKIP() << "nobody to exchange with";
  constexpr std::int64_t kCount = 1 << 20;
  const int last = size() - 1;
  const std::vector<float> values = input<float>(last, kCount, 6);
  const Buffer buffer = rank() == last ? uploaded(queue_, values) : poisoned<float>(queue_, kCount);
  const Communicator::Message message{buffer.tensor(), rank() == last ? 0 : last};
  if (rank() == 0) {
    Pending pending = communicator_->exchange(queue_, {}, std::span(&message, 1));
    EXPECT_FALSE(pending.passed());
    session_.world().barrier();
    while (!pending.passed()) queue_.synchronize();
    pending.wait_on_host();
    expect_same(now(buffer.tensor()), values, "exchange");
  } else {
    session_.world().barrier();
    if (rank() == last) communicator_->exchange(queue_, std::span(&message, 1), {}).wait(queue_);
  }
}

// Memory of exchanges is used again, but not before the copies out of it have passed: the first rank
// receives, and sends nothing that would make it wait for its queue.
TEST_F(StagedCommunicatorEdges, UsesHostMemoryAgain) {
  if (size() == 1) GTEST_SKIP() << "nobody to exchange with";
  if (rank() > 1) return;
  constexpr int kMessages = 6;
  std::vector<Buffer> buffers;
  for (int k = 0; k < kMessages; ++k) {
    buffers.push_back(rank() == 1 ? uploaded(queue_, message<float>(1, 0, k, 500))
                                  : poisoned<float>(queue_, 500));
  }
  const auto exchange = [&](int k) {
    const Communicator::Message one{buffers[static_cast<std::size_t>(k)].tensor(), 1 - rank()};
    const std::span<const Communicator::Message> some(&one, 1), none;
    return communicator_->exchange(queue_, rank() == 1 ? some : none, rank() == 0 ? some : none);
  };
  Pending first = exchange(0), second = exchange(1);
  first.wait(queue_);
  second.wait(queue_);
  exchange(2).wait(queue_);
  EXPECT_EQ(queue_.host_allocations(), rank() == 0 ? 3 : 2);  // the receiver had none to use again
  queue_.synchronize();
  for (int k = 3; k < kMessages; ++k) {
    exchange(k).wait(queue_);
    queue_.synchronize();
  }
  EXPECT_EQ(queue_.host_allocations(), rank() == 0 ? 3 : 2);
  for (int k = 0; k < kMessages && rank() == 0; ++k)
    expect_same(now(buffers[static_cast<std::size_t>(k)].tensor()), message<float>(1, 0, k, 500), "exchange");
}

TEST_F(StagedCommunicatorEdges, RefusesArgumentsThatDoNotFit) {
  CpuQueue cpu;
  const Buffer buffer = uploaded(queue_, std::vector<float>(12));
  const Tensor whole = buffer.tensor();
  EXPECT_THROW(communicator_->all_reduce(cpu, whole, Reduce::sum).wait(queue_), InternalError);
  EXPECT_THROW(communicator_->exchange(cpu, {}, {}).wait(queue_), InternalError);
  EXPECT_THROW(communicator_->all_gather(queue_, whole.rows(0, 11), whole).wait(queue_), InternalError);
  const Communicator::Message self{whole, rank()};
  EXPECT_THROW(communicator_->exchange(queue_, std::span(&self, 1), {}).wait(queue_), InternalError);
}

}  // namespace
}  // namespace verne
