#include <gtest/gtest.h>
#include <mpi.h>

#include <algorithm>
#include <numeric>

#include "verne/base/error.hpp"
#include "verne/comm/host_messages.hpp"

namespace verne {
namespace {

struct HostMessagesTest : ::testing::Test {
  const HostGroup world{MPI_COMM_WORLD};
  const int rank = world.rank(), size = world.size();
};

std::vector<std::byte> content(int from, int to, int number, std::size_t bytes) {
  std::vector<std::byte> data(bytes);
  for (std::size_t i = 0; i < bytes; ++i)
    data[i] = static_cast<std::byte>(i * 7 + static_cast<std::size_t>(31 * from + 5 * to + 101 * number));
  return data;
}

// Small and large ones, between all pairs at once, in order.
TEST_F(HostMessagesTest, EveryMessageArrivesWhole) {
  constexpr std::array<std::size_t, 4> kBytes = {0, 3, 70'000, 5'000'000};
  HostMessages messages(world);
  std::vector<std::vector<std::byte>> sent, received, expected;
  sent.reserve(kBytes.size() * static_cast<std::size_t>(size));
  received.reserve(sent.capacity());
  std::vector<std::int64_t> begun;
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    for (std::size_t i = 0; i < kBytes.size(); ++i) {
      received.emplace_back(kBytes[i]);
      expected.push_back(content(peer, rank, static_cast<int>(i), kBytes[i]));
      begun.push_back(messages.receive(peer, received.back()));
      sent.push_back(content(rank, peer, static_cast<int>(i), kBytes[i]));
      begun.push_back(messages.send(peer, sent.back()));
    }
  }
  std::vector<std::int64_t> done;
  while (messages.under_way() > 0) {
    for (const std::int64_t number : messages.finished()) done.push_back(number);
    for (const std::int64_t number : messages.wait()) done.push_back(number);
  }
  std::sort(done.begin(), done.end());
  EXPECT_EQ(done, begun);
  EXPECT_EQ(received, expected);
  EXPECT_TRUE(messages.wait().empty());
}

TEST_F(HostMessagesTest, WrongEndsAndLengthsAreFound) {
  HostMessages messages(world);
  std::vector<std::byte> data(8);
  EXPECT_THROW(messages.send(rank, data), InternalError);
  EXPECT_THROW(messages.receive(size, data), InternalError);
  if (size == 1) return;
  const int next = (rank + 1) % size, before = (rank + size - 1) % size;
  std::vector<std::byte> longer(9);
  messages.receive(before, longer);
  messages.send(next, data);
  EXPECT_THROW(
      {
        while (messages.under_way() > 0) messages.wait();
      },
      InternalError);
  world.barrier();
}

}  // namespace
}  // namespace verne
