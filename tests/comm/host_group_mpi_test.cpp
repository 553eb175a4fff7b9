#include <gtest/gtest.h>
#include <mpi.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "verne/base/error.hpp"
#include "verne/comm/agree.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/comm/mpi_session.hpp"
#include "verne/comm/watchdog.hpp"

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

TEST_F(HostGroupTest, AMaximumWithANanIsNone) {
  for (int holder = 0; holder < size_; ++holder) {
    const double value = rank_ == holder ? std::numeric_limits<double>::quiet_NaN() : 1.0 * rank_;
    EXPECT_TRUE(std::isnan(world_.max(value))) << holder;
  }
}

/// What a call throws, with N for line numbers.
template <class Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const InternalError& error) {
    std::string text;
    for (const char c : std::string_view(error.what())) {
      const bool in_number = text.ends_with(":N");
      if (c < '0' || c > '9' || !(in_number || text.ends_with(':'))) {
        text += c;
      } else if (!in_number) {
        text += 'N';
      }
    }
    return text;
  }
  return "no error";
}

/// "rank 1", "ranks 1-3": all but the first.
std::string others(int size) {
  return size == 2 ? "rank 1" : "ranks 1-" + std::to_string(size - 1);
}

// All exchange one word a rank through the same call of MPI: without their tags they would take each other's
// words for answers.
TEST_F(HostGroupTest, FindsOutThatTwoAgreementsMet) {
  if (size_ == 1) GTEST_SKIP() << "nobody to meet";
  const HostGroup group = world_.split(0, rank_);
  const std::int64_t one = 1;
  const std::string head = "different host collectives met: ", at = " at comm/host_group_mpi_test.cpp:N on ";
  // Rank 0 calls the first, the others the second; not inside a macro, which is one place for both.
  const auto meet = [&](auto&& first, auto&& second) {
    return error_of([&] { rank_ == 0 ? first() : second(); });
  };
  std::string error = meet([&] { group.sum(one); }, [&] { group.max(one); });
  EXPECT_EQ(error, head + "max number 1" + at + others(size_) + ", sum number 1" + at + "rank 0");
  error = meet(
      [&] {
        group.min(one);  // the same call
      },
      [&] {
        group.min(one);  // from another line
      });
  EXPECT_EQ(error.substr(0, head.size()), head);
  error = meet([&] { group.barrier(); }, [&] { group.sum(one); });
  EXPECT_EQ(error, head + "barrier number 3" + at + "rank 0, sum number 3" + at + others(size_));
  error = meet([&] { group.all_gather(one); }, [&] { group.sum(0.5); });
  EXPECT_EQ(error,
            head + "all_gather number 4" + at + "rank 0, sum of doubles number 4" + at + others(size_));
  error = meet([&] { agree_after(group, [] {}); }, [&] { group.sum(one); });
  EXPECT_EQ(error.substr(0, head.size()), head);
  // The group is as good as before.
  EXPECT_EQ(group.sum(one), size_);
}

TEST_F(HostGroupTest, BarriersMeetWhereverTheyAre) {
  if (rank_ == 0) {
    world_.barrier();
  } else {
    world_.barrier();
  }
}

TEST_F(HostGroupTest, SplitsByNode) {
  const HostGroup node = world_.split_by_node();
  EXPECT_EQ(node.size(), size_);  // tests run on one
  EXPECT_EQ(node.rank(), rank_);
}

TEST_F(HostGroupTest, KnowsItsRanksInTheWorld) {
  const HostGroup reversed = world_.split(0, -rank_);
  std::vector<std::int64_t> expected;
  for (int r = size_ - 1; r >= 0; --r) expected.push_back(r);
  EXPECT_EQ(reversed.world_ranks(), expected);
  const HostGroup pair = reversed.split(reversed.rank() % 2, reversed.rank());
  EXPECT_EQ(pair.world_ranks()[static_cast<std::size_t>(pair.rank())], rank_);
  EXPECT_EQ(HostGroup().world_ranks(), std::vector<std::int64_t>{0});
}

TEST_F(HostGroupTest, RunsAnotherLibrarysCollective) {
  int ran = 0;
  world_.collective("MPI_Barrier", [&] { ran += MPI_Barrier(MPI_COMM_WORLD) == MPI_SUCCESS; });
  HostGroup().collective("nothing", [&] { ++ran; });
  EXPECT_EQ(ran, 2);
}

// A session's groups meet one watchdog after another, and go before or after it; more groups than it has
// places for come and go.
TEST(WatchedHostGroups, OutliveTheirWatchdogs) {
  const MpiSession session;
  const HostGroup before = session.world().split(0, session.rank());
  const std::int64_t size = session.size();
  for (int round = 0; round < 2; ++round) {
    std::optional<HostGroup> during;
    {
      const Watchdog watchdog(session, 100);
      during = before.split(0, session.rank());
      for (int i = 0; i < 300; ++i) {
        const HostGroup passing = session.world().split(0, session.rank());
        ASSERT_EQ(passing.sum(std::int64_t{i}), size * i);
      }
      EXPECT_EQ(before.sum(std::int64_t{1}), size);
      EXPECT_EQ(during->sum(std::int64_t{2}), size * 2);
      EXPECT_EQ(session.node().sum(std::int64_t{3}), size * 3);
      EXPECT_THROW(Watchdog(session, 100), InternalError);
    }
    EXPECT_EQ(during->sum(std::int64_t{4}), size * 4);
    EXPECT_EQ(before.all_gather_text("x"), std::vector<std::string>(static_cast<std::size_t>(size), "x"));
  }
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
