#include <gtest/gtest.h>
#include <mpi.h>

#include <limits>
#include <memory>

#include "collective_cases.hpp"
#include "verne/comm/make_communicator.hpp"
#include "verne/comm/mpi_communicator.hpp"
#include "verne/comm/mpi_session.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

// One element, odd counts, both sides of the one-call limit (16 KiB), and more than a round of staging (32
// MiB in all).
constexpr std::int64_t kCounts[] = {0, 1, 2, 3, 5, 71, 229, 4096, 4097, 16389, 70001};

template <class T>
class MpiCommunicatorTest : public ::testing::Test {
 protected:
  MpiCommunicatorTest() : communicator_(make_communicator("data", session_.world(), queue_, &watchdog_)) {}

  int rank() const { return session_.rank(); }
  int size() const { return session_.size(); }

  MpiSession session_;
  CpuQueue queue_{2};
  Watchdog watchdog_{session_, 100};
  std::unique_ptr<Communicator> communicator_;
};

using AllTypes = ::testing::Types<float, double, bf16, std::int32_t, std::uint8_t>;
TYPED_TEST_SUITE(MpiCommunicatorTest, AllTypes);

TYPED_TEST(MpiCommunicatorTest, AllReduce) {
  for (const std::int64_t count : kCounts)
    expect_all_reduce<TypeParam>(*this->communicator_, this->queue_, count);
}
TYPED_TEST(MpiCommunicatorTest, AllGatherApartAndInPlace) {
  for (const std::int64_t count : kCounts)
    expect_all_gather<TypeParam>(*this->communicator_, this->queue_, count);
}
TYPED_TEST(MpiCommunicatorTest, ReduceScatterApartAndInPlace) {
  for (const std::int64_t count : kCounts)
    expect_reduce_scatter<TypeParam>(*this->communicator_, this->queue_, count);
}
TYPED_TEST(MpiCommunicatorTest, Broadcast) {
  for (const std::int64_t count : kCounts)
    expect_broadcast<TypeParam>(*this->communicator_, this->queue_, count);
}
TYPED_TEST(MpiCommunicatorTest, ExchangesWithAll) {
  for (const std::int64_t count : kCounts)
    expect_exchange_with_all<TypeParam>(*this->communicator_, this->queue_, count);
}

class MpiCommunicatorEdges : public MpiCommunicatorTest<float> {};

// Longer than a round of staging.
TEST_F(MpiCommunicatorEdges, LongTensorsGoInRounds) {
  const std::int64_t count = (std::int64_t{9} << 20) + 5;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    values[static_cast<std::size_t>(i)] = static_cast<float>(i % 1021 + 3 * rank());
  }
  const auto sum_at = [&](std::int64_t i) {
    return static_cast<float>(size() * (i % 1021) + 3 * size() * (size() - 1) / 2);
  };
  const Buffer buffer = uploaded(queue_, values);
  communicator_->all_reduce(queue_, buffer.tensor(), Reduce::sum).wait(queue_);
  const auto got = buffer.tensor().span<float>();
  for (std::int64_t i = 0; i < count; ++i) ASSERT_EQ(got[static_cast<std::size_t>(i)], sum_at(i)) << i;

  const std::int64_t part = count / size();
  const Buffer in = uploaded(queue_, std::vector<float>(values.begin(), values.begin() + part * size()));
  const Buffer out = poisoned<float>(queue_, part);
  communicator_->reduce_scatter(queue_, out.tensor(), in.tensor()).wait(queue_);
  for (std::int64_t i = 0; i < part; ++i) {
    ASSERT_EQ(out.tensor().span<float>()[static_cast<std::size_t>(i)], sum_at(rank() * part + i)) << i;
  }
}

TEST_F(MpiCommunicatorEdges, ANanOnOneRankIsTheMaximum) {
  for (int holder = 0; holder < size(); ++holder) {
    const float value =
        rank() == holder ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(rank());
    const Buffer buffer = uploaded(queue_, std::vector<float>{value, -1.0f - static_cast<float>(rank())});
    communicator_->all_reduce(queue_, buffer.tensor(), Reduce::max).wait(queue_);
    const auto got = downloaded<float>(queue_, buffer.tensor());
    EXPECT_TRUE(std::isnan(got[0])) << holder;
    EXPECT_EQ(got[1], -1.0f);
  }
}

TEST_F(MpiCommunicatorEdges, RefusesArgumentsThatDoNotFit) {
  const Buffer buffer = uploaded(queue_, std::vector<float>(12));
  const Tensor whole = buffer.tensor();
  EXPECT_THROW(communicator_->all_gather(queue_, whole.rows(0, 11), whole.rows(0, 12)).wait(queue_),
               InternalError);
  EXPECT_THROW(communicator_->reduce_scatter(queue_, whole.rows(0, 5), whole.rows(0, 12)).wait(queue_),
               InternalError);
  EXPECT_THROW(communicator_->broadcast(queue_, whole, size()).wait(queue_), InternalError);
  const Tensor strided = whole.view({3, 4}).columns(0, 2);
  EXPECT_THROW(communicator_->all_reduce(queue_, strided, Reduce::sum).wait(queue_), InternalError);
  const int next = (rank() + 1) % size();
  for (const Communicator::Message& wrong :
       {Communicator::Message{whole, rank()}, Communicator::Message{whole, -1},
        Communicator::Message{whole, size()}, Communicator::Message{strided, next}}) {
    EXPECT_THROW(communicator_->exchange(queue_, std::span(&wrong, 1), {}).wait(queue_), InternalError);
    EXPECT_THROW(communicator_->exchange(queue_, {}, std::span(&wrong, 1)).wait(queue_), InternalError);
  }
  const Buffer integers = uploaded(queue_, std::vector<std::int32_t>(12));
  EXPECT_THROW(communicator_->all_reduce(queue_, integers.tensor(), Reduce::sum).wait(queue_), InternalError);
}

// The first rank posts its receives, larger than MPI sends ahead, before anybody sends; a call that waited
// would wait for ever.
TEST_F(MpiCommunicatorEdges, AnExchangeDoesNotWaitForTheOtherSide) {
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
    pending.wait_on_host();
    EXPECT_TRUE(pending.passed());
    expect_same(downloaded<float>(queue_, buffer.tensor()), values, "exchange");
  } else {
    session_.world().barrier();
    if (rank() == last) communicator_->exchange(queue_, std::span(&message, 1), {}).wait(queue_);
  }
}

TEST_F(MpiCommunicatorEdges, AnExchangeOfNothingIsDone) {
  Pending pending = communicator_->exchange(queue_, {}, {});
  EXPECT_TRUE(pending.passed());
  pending.wait(queue_);
}

TEST_F(MpiCommunicatorEdges, AMessageIsAsLongAsTheTensorForIt) {
  if (size() == 1) GTEST_SKIP() << "nobody to exchange with";
  for (const std::int64_t expected : {5, 2}) {
    const Buffer buffer = uploaded(queue_, std::vector<float>(5));
    if (rank() == 1) {
      const Communicator::Message three{buffer.tensor().rows(0, 3), 0};
      communicator_->exchange(queue_, std::span(&three, 1), {}).wait(queue_);
    } else if (rank() == 0) {
      const Communicator::Message other{buffer.tensor().rows(0, expected), 1};
      Pending pending = communicator_->exchange(queue_, {}, std::span(&other, 1));
      std::string message;
      try {
        pending.wait(queue_);
      } catch (const InternalError& error) {
        message = error.what();
      }
      EXPECT_EQ(message, expected == 5
                             ? "exchange on communicator data: 12 bytes came from rank 1, expected 20"
                             : "exchange on communicator data: a message is longer than the tensor "
                               "that receives it");
    }
  }
}

// Groups of neighbours and of every other rank at once, as in a tensor × data layout.
TEST_F(MpiCommunicatorEdges, GroupsDoNotMixTheirMessages) {
  const HostGroup tensor_ranks = session_.world().split(rank() / 2, rank());
  const HostGroup data_ranks = session_.world().split(rank() % 2, rank());
  const auto tensor = make_communicator("tensor", tensor_ranks, queue_, &watchdog_);
  const auto data = make_communicator("data", data_ranks, queue_, &watchdog_);
  const Buffer buffer = uploaded(queue_, std::vector<float>{static_cast<float>(1 << rank())});
  tensor->all_reduce(queue_, buffer.tensor(), Reduce::sum).wait(queue_);
  const int pair = rank() / 2 * 2;
  const int pair_bits = (1 << pair) + (pair + 1 < size() ? 1 << (pair + 1) : 0);
  EXPECT_EQ(buffer.tensor().span<float>()[0], static_cast<float>(pair_bits));
  data->all_reduce(queue_, buffer.tensor(), Reduce::sum).wait(queue_);
  EXPECT_EQ(buffer.tensor().span<float>()[0], static_cast<float>((1 << size()) - 1));
}

}  // namespace
}  // namespace verne
