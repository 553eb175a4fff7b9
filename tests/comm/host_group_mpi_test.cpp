#include <gtest/gtest.h>
#include <mpi.h>

#include <numeric>
#include <string>
#include <vector>

#include "verne/comm/host_group.hpp"

namespace verne {
namespace {

class HostGroupTest : public ::testing::Test {
 protected:
  const HostGroup world_{MPI_COMM_WORLD};
  const int rank_ = world_.rank();
  const int size_ = world_.size();
};

TEST_F(HostGroupTest, Sums) {
  const std::int64_t n = size_;
  EXPECT_EQ(world_.sum((std::int64_t{1} << 40) + rank_), (n << 40) + n * (n - 1) / 2);
  EXPECT_EQ(world_.min(std::int64_t{5} - rank_), 6 - n);
  EXPECT_EQ(world_.max(std::int64_t{5} + rank_), 4 + n);
  EXPECT_EQ(world_.max(0.5 * rank_), 0.5 * (size_ - 1));
  std::vector<std::int64_t> counts = {rank_, 1, -rank_};
  world_.sum(std::span(counts));
  EXPECT_EQ(counts, (std::vector<std::int64_t>{n * (n - 1) / 2, n, -n * (n - 1) / 2}));
}

// In double, the order of additions decides the last bits: it is the ranks' order.
TEST_F(HostGroupTest, SumsDoublesInRankOrder) {
  const std::int64_t count = (std::int64_t{1} << 20) / size_ + 17;  // more than one piece
  const auto value = [](int rank, std::int64_t i) { return 1.0 / static_cast<double>(3 * i + 7 * rank + 1); };
  std::vector<double> values, expected;
  for (std::int64_t i = 0; i < count; ++i) {
    values.push_back(value(rank_, i));
    double total = 0;
    for (int r = 0; r < size_; ++r) total += value(r, i);
    expected.push_back(total);
  }
  world_.sum(std::span(values));
  EXPECT_EQ(values, expected);
  EXPECT_EQ(world_.sum(0.1 * (rank_ + 1)), [&] {
    double total = 0;
    for (int r = 0; r < size_; ++r) total += 0.1 * (r + 1);
    return total;
  }());
}

TEST_F(HostGroupTest, GathersAndBroadcastsTexts) {
  const std::string own(static_cast<std::size_t>(3 * rank_), static_cast<char>('a' + rank_));
  std::vector<std::string> expected;
  for (int r = 0; r < size_; ++r) {
    expected.emplace_back(static_cast<std::size_t>(3 * r), static_cast<char>('a' + r));
  }
  EXPECT_EQ(world_.all_gather_text(own), expected);
  for (int root = 0; root < size_; ++root) {
    EXPECT_EQ(world_.broadcast_text("from " + std::to_string(rank_), root), "from " + std::to_string(root));
  }
  EXPECT_EQ(world_.broadcast_text(rank_ == 0 ? "" : "not me", 0), "");
  std::vector<std::int64_t> ranks(static_cast<std::size_t>(size_));
  std::iota(ranks.begin(), ranks.end(), 0);
  EXPECT_EQ(world_.all_gather(std::int64_t{rank_}), ranks);
}

TEST_F(HostGroupTest, ExchangesBlocksOfAnySize) {
  const auto block = [](int from, int to) {
    std::vector<std::byte> bytes(static_cast<std::size_t>((from * 31 + to * 1777) % 5000));
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 + 13 * from + to);
    return bytes;
  };
  std::vector<std::vector<std::byte>> to, expected;
  for (int r = 0; r < size_; ++r) {
    to.push_back(block(rank_, r));
    expected.push_back(block(r, rank_));
  }
  EXPECT_EQ(world_.all_to_all(to), expected);
}

TEST_F(HostGroupTest, SplitsByColourInKeyOrder) {
  const HostGroup half = world_.split(rank_ % 2, -rank_);
  std::vector<std::int64_t> expected;
  for (int r = size_ - 1; r >= 0; --r) {
    if (r % 2 == rank_ % 2) expected.push_back(r);
  }
  EXPECT_EQ(half.all_gather(std::int64_t{rank_}), expected);
  EXPECT_EQ(half.size(), static_cast<int>(expected.size()));
}

TEST(LoneHostGroup, NeedsNoMpi) {
  const HostGroup alone;
  alone.barrier();
  EXPECT_EQ(alone.communicator(), nullptr);
  EXPECT_EQ(alone.sum(std::int64_t{3}), 3);
  EXPECT_EQ(alone.sum(0.25), 0.25);
  EXPECT_EQ(alone.max(0.25), 0.25);
  EXPECT_EQ(alone.broadcast_text("x", 0), "x");
  EXPECT_EQ(alone.all_gather_text("x"), std::vector<std::string>{"x"});
  EXPECT_EQ(alone.split(3, 1).size(), 1);
  const std::vector<std::vector<std::byte>> block = {{std::byte{1}, std::byte{2}}};
  EXPECT_EQ(alone.all_to_all(block), block);
}

}  // namespace
}  // namespace verne
