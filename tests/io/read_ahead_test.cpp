#include "read_ahead.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstring>

#include "verne/base/error.hpp"

namespace verne {
namespace {

using namespace std::chrono_literals;

/// Item i is 8 bytes: its number.
std::vector<ReadAhead::Item> numbered(std::size_t count) {
  std::vector<ReadAhead::Item> items;
  for (std::size_t i = 0; i < count; ++i)
    items.push_back({.place = {.tensor = i, .block = 0}, .bytes = 8, .to = {}});
  return items;
}
void put(std::size_t number, std::span<std::byte> to) {
  std::memcpy(to.data(), &number, sizeof number);
}
std::size_t number_in(const std::byte* memory) {
  std::size_t number = 0;
  std::memcpy(&number, memory, sizeof number);
  return number;
}

TEST(ReadAhead, GivesBlocksInOrderHoweverTheyArrive) {
  std::atomic<bool> second = false;
  ReadAhead reading({.read =
                         [&](const BlockIndex::Place& place, std::span<std::byte> to) {
                           while (place.tensor == 0 && !second) std::this_thread::sleep_for(1ms);
                           put(place.tensor, to);
                           if (place.tensor == 1) second = true;
                         },
                     .will_read = [](const BlockIndex::Place&) {}},
                    numbered(9), 3);
  for (std::size_t i = 0; i < 9; ++i) {
    auto memory = reading.take();
    EXPECT_EQ(number_in(memory.get()), i);
    reading.give_back(std::move(memory));
  }
  EXPECT_FALSE(reading.failure());
}

TEST(ReadAhead, OneBlockOfMemoryIsEnoughAndNoMoreIsUsed) {
  std::atomic<int> lent = 0, most = 0;
  ReadAhead reading({.read =
                         [&](const BlockIndex::Place& place, std::span<std::byte> to) {
                           most = std::max<int>(most, ++lent);
                           put(place.tensor, to);
                         },
                     .will_read = [](const BlockIndex::Place&) {}},
                    numbered(5), 1);
  for (std::size_t i = 0; i < 5; ++i) {
    auto memory = reading.take();
    EXPECT_FALSE(reading.ready(1ms)) << "its memory is here";
    EXPECT_EQ(number_in(memory.get()), i);
    --lent;
    reading.give_back(std::move(memory));
  }
  EXPECT_EQ(most, 1);
}

TEST(ReadAhead, ReadsToWhereItIsTold) {
  std::array<std::byte, 8> here{};
  std::vector<ReadAhead::Item> items = numbered(3);
  items[1].to = here;
  ReadAhead reading(
      {.read = [](const BlockIndex::Place& place, std::span<std::byte> to) { put(place.tensor, to); },
       .will_read = [](const BlockIndex::Place&) {}},
      items, 2);
  EXPECT_EQ(number_in(reading.take().get()), 0u);
  EXPECT_EQ(reading.take(), nullptr);
  EXPECT_EQ(number_in(here.data()), 1u);
  EXPECT_EQ(number_in(reading.take().get()), 2u);
}

TEST(ReadAhead, TellsOfEveryBlockButTheFirstBeforeItIsRead) {
  std::mutex mutex;
  std::vector<std::size_t> told;
  {
    ReadAhead reading({.read = [](const BlockIndex::Place&, std::span<std::byte>) {},
                       .will_read =
                           [&](const BlockIndex::Place& place) {
                             const std::lock_guard lock(mutex);
                             told.push_back(place.tensor);
                           }},
                      numbered(6), 6);
    for (int i = 0; i < 6; ++i) reading.take();
  }
  EXPECT_THAT(told, ::testing::UnorderedElementsAre(1, 2, 3, 4, 5));
}

TEST(ReadAhead, KeepsTheFirstFailureAndReadsNoMore) {
  std::atomic<int> read = 0;
  ReadAhead reading({.read =
                         [&](const BlockIndex::Place& place, std::span<std::byte>) {
                           ++read;
                           if (place.tensor == 0) throw_user_error("the first");
                         },
                     .will_read = [](const BlockIndex::Place&) {}},
                    numbered(40), 1);
  for (int i = 0; i < 40; ++i) reading.give_back(reading.take());
  EXPECT_EQ(read, 1);
  try {
    std::rethrow_exception(reading.failure());
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(), "the first");
  }
}

TEST(ReadAhead, CanBeLeftInTheMiddle) {
  std::atomic<int> read = 0;
  {
    ReadAhead reading({.read = [&](const BlockIndex::Place&, std::span<std::byte>) { ++read; },
                       .will_read = [](const BlockIndex::Place&) {}},
                      numbered(100), 2);
    reading.take();
  }
  EXPECT_LE(read, 3);
}

}  // namespace
}  // namespace verne
