#include <gtest/gtest.h>
#include <mpi.h>

#include <limits>
#include <memory>

#include "collective_cases.hpp"
#include "verne/base/hash.hpp"
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
  void expect_equal_on_all_ranks(const Tensor& tensor) {
    const auto bytes = std::span(tensor.raw(), static_cast<std::size_t>(tensor.bytes()));
    const std::string own = hex64(xxh3(std::span<const std::byte>(bytes)));
    for (const std::string& other : session_.world().all_gather_text(own)) EXPECT_EQ(other, own);
  }

  MpiSession session_;
  CpuQueue queue_{2};
  Watchdog watchdog_{session_, 100};
  std::unique_ptr<Communicator> communicator_;
};

using AllTypes = ::testing::Types<float, double, bf16, std::int32_t, std::uint8_t>;
TYPED_TEST_SUITE(MpiCommunicatorTest, AllTypes);

TYPED_TEST(MpiCommunicatorTest, AllReduce) {
  for (const Reduce reduce : {Reduce::sum, Reduce::max}) {
    if (std::is_integral_v<TypeParam> && reduce == Reduce::sum) continue;
    for (const std::int64_t count : kCounts) {
      const Buffer buffer = uploaded(this->queue_, input<TypeParam>(this->rank(), count, 1));
      this->communicator_->all_reduce(this->queue_, buffer.tensor(), reduce).wait(this->queue_);
      expect_same(downloaded<TypeParam>(this->queue_, buffer.tensor()),
                  narrow<TypeParam>(reduced<TypeParam>(this->size(), count, 1, reduce)), "all_reduce");
      this->expect_equal_on_all_ranks(buffer.tensor());
    }
  }
}

TYPED_TEST(MpiCommunicatorTest, AllGatherApartAndInPlace) {
  for (const std::int64_t count : kCounts) {
    std::vector<TypeParam> expected;
    for (int r = 0; r < this->size(); ++r) {
      const auto part = input<TypeParam>(r, count, 2);
      expected.insert(expected.end(), part.begin(), part.end());
    }
    const Buffer in = uploaded(this->queue_, input<TypeParam>(this->rank(), count, 2));
    const Buffer out = poisoned<TypeParam>(this->queue_, count * this->size());
    this->communicator_->all_gather(this->queue_, out.tensor(), in.tensor());
    expect_same(downloaded<TypeParam>(this->queue_, out.tensor()), expected, "all_gather");

    const Buffer whole = poisoned<TypeParam>(this->queue_, count * this->size());
    const Tensor own = whole.tensor().rows(this->rank() * count, count);
    if (count > 0) this->queue_.copy(own, in.tensor());
    this->communicator_->all_gather(this->queue_, whole.tensor(), own);
    expect_same(downloaded<TypeParam>(this->queue_, whole.tensor()), expected, "all_gather in place");
  }
}

TYPED_TEST(MpiCommunicatorTest, ReduceScatterApartAndInPlace) {
  if (std::is_integral_v<TypeParam>) {
    const Buffer buffer = uploaded(this->queue_, input<TypeParam>(0, this->size(), 3));
    const Tensor own = buffer.tensor().rows(this->rank(), 1);
    EXPECT_THROW(this->communicator_->reduce_scatter(this->queue_, own, buffer.tensor()), InternalError);
    return;
  }
  for (const std::int64_t count : kCounts) {
    const auto whole =
        narrow<TypeParam>(reduced<TypeParam>(this->size(), count * this->size(), 3, Reduce::sum));
    const std::vector<TypeParam> expected(whole.begin() + this->rank() * count,
                                          whole.begin() + (this->rank() + 1) * count);
    const auto values = input<TypeParam>(this->rank(), count * this->size(), 3);
    const Buffer in = uploaded(this->queue_, values);
    const Buffer out = poisoned<TypeParam>(this->queue_, count);
    this->communicator_->reduce_scatter(this->queue_, out.tensor(), in.tensor());
    expect_same(downloaded<TypeParam>(this->queue_, out.tensor()), expected, "reduce_scatter");
    expect_same(downloaded<TypeParam>(this->queue_, in.tensor()), values, "reduce_scatter's input");

    const Tensor own = in.tensor().rows(this->rank() * count, count);
    this->communicator_->reduce_scatter(this->queue_, own, in.tensor());
    expect_same(downloaded<TypeParam>(this->queue_, own), expected, "reduce_scatter in place");
  }
}

TYPED_TEST(MpiCommunicatorTest, Broadcast) {
  for (const std::int64_t count : kCounts) {
    for (int root = 0; root < this->size(); ++root) {
      const Buffer buffer = uploaded(this->queue_, input<TypeParam>(this->rank(), count, 4));
      this->communicator_->broadcast(this->queue_, buffer.tensor(), root);
      expect_same(downloaded<TypeParam>(this->queue_, buffer.tensor()), input<TypeParam>(root, count, 4),
                  "broadcast");
    }
  }
}

TYPED_TEST(MpiCommunicatorTest, SendsAlongARing) {
  if (this->size() == 1) GTEST_SKIP() << "nobody to send to";
  const int next = (this->rank() + 1) % this->size(),
            previous = (this->rank() + this->size() - 1) % this->size();
  for (const std::int64_t count : kCounts) {
    const Buffer out = uploaded(this->queue_, input<TypeParam>(this->rank(), count, 5));
    const Buffer in = poisoned<TypeParam>(this->queue_, count);
    if (this->rank() == 0) {
      this->communicator_->send(this->queue_, out.tensor(), next);
      this->communicator_->receive(this->queue_, in.tensor(), previous);
    } else {
      this->communicator_->receive(this->queue_, in.tensor(), previous);
      this->communicator_->send(this->queue_, out.tensor(), next);
    }
    expect_same(downloaded<TypeParam>(this->queue_, in.tensor()), input<TypeParam>(previous, count, 5),
                "receive");
  }
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
  communicator_->all_reduce(queue_, buffer.tensor(), Reduce::sum);
  const auto got = buffer.tensor().span<float>();
  for (std::int64_t i = 0; i < count; ++i) ASSERT_EQ(got[static_cast<std::size_t>(i)], sum_at(i)) << i;

  const std::int64_t part = count / size();
  const Buffer in = uploaded(queue_, std::vector<float>(values.begin(), values.begin() + part * size()));
  const Buffer out = poisoned<float>(queue_, part);
  communicator_->reduce_scatter(queue_, out.tensor(), in.tensor());
  for (std::int64_t i = 0; i < part; ++i) {
    ASSERT_EQ(out.tensor().span<float>()[static_cast<std::size_t>(i)], sum_at(rank() * part + i)) << i;
  }
}

TEST_F(MpiCommunicatorEdges, ANanOnOneRankIsTheMaximum) {
  for (int holder = 0; holder < size(); ++holder) {
    const float value =
        rank() == holder ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(rank());
    const Buffer buffer = uploaded(queue_, std::vector<float>{value, -1.0f - static_cast<float>(rank())});
    communicator_->all_reduce(queue_, buffer.tensor(), Reduce::max);
    const auto got = downloaded<float>(queue_, buffer.tensor());
    EXPECT_TRUE(std::isnan(got[0])) << holder;
    EXPECT_EQ(got[1], -1.0f);
  }
}

TEST_F(MpiCommunicatorEdges, RefusesArgumentsThatDoNotFit) {
  const Buffer buffer = uploaded(queue_, std::vector<float>(12));
  const Tensor whole = buffer.tensor();
  EXPECT_THROW(communicator_->all_gather(queue_, whole.rows(0, 11), whole.rows(0, 12)), InternalError);
  EXPECT_THROW(communicator_->reduce_scatter(queue_, whole.rows(0, 5), whole.rows(0, 12)), InternalError);
  EXPECT_THROW(communicator_->broadcast(queue_, whole, size()), InternalError);
  EXPECT_THROW(communicator_->send(queue_, whole, rank()), InternalError);
  EXPECT_THROW(communicator_->all_reduce(queue_, whole.view({3, 4}).columns(0, 2), Reduce::sum),
               InternalError);
  const Buffer integers = uploaded(queue_, std::vector<std::int32_t>(12));
  EXPECT_THROW(communicator_->all_reduce(queue_, integers.tensor(), Reduce::sum), InternalError);
}

// Groups of neighbours and of every other rank at once, as in a tensor × data layout.
TEST_F(MpiCommunicatorEdges, GroupsDoNotMixTheirMessages) {
  const HostGroup tensor_ranks = session_.world().split(rank() / 2, rank());
  const HostGroup data_ranks = session_.world().split(rank() % 2, rank());
  const auto tensor = make_communicator("tensor", tensor_ranks, queue_, &watchdog_);
  const auto data = make_communicator("data", data_ranks, queue_, &watchdog_);
  const Buffer buffer = uploaded(queue_, std::vector<float>{static_cast<float>(1 << rank())});
  tensor->all_reduce(queue_, buffer.tensor(), Reduce::sum);
  const int pair = rank() / 2 * 2;
  const int pair_bits = (1 << pair) + (pair + 1 < size() ? 1 << (pair + 1) : 0);
  EXPECT_EQ(buffer.tensor().span<float>()[0], static_cast<float>(pair_bits));
  data->all_reduce(queue_, buffer.tensor(), Reduce::sum);
  EXPECT_EQ(buffer.tensor().span<float>()[0], static_cast<float>((1 << size()) - 1));
}

}  // namespace
}  // namespace verne
