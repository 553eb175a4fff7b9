#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "verne/base/random.hpp"
#include "verne/comm/communicator.hpp"

namespace verne::testing {

/// Element `i` of rank `rank`'s input. Small integers for the integer types; elsewhere values whose sums
/// depend on order.
template <class T>
T input_value(int rank, std::int64_t i, std::uint64_t seed) {
  const RandomWords words =
      philox({.seed = seed, .site = static_cast<std::uint32_t>(rank)}, static_cast<std::uint64_t>(i));
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(words.word[0] % 251);
  } else {
    const float scale = std::ldexp(1.0f, static_cast<int>(words.word[1] % 9) - 4);
    const float coarse = (2 * uniform_open(words.word[0]) - 1) * scale;
    if constexpr (std::is_same_v<T, double>) {
      // The bits that a float leaves free; by no arithmetic that a compiler may contract with a sum.
      return std::bit_cast<double>(std::bit_cast<std::uint64_t>(double{coarse}) | (words.word[2] >> 3));
    }
    return static_cast<T>(coarse);
  }
}

template <class T>
std::vector<T> input(int rank, std::int64_t count, std::uint64_t seed) {
  std::vector<T> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(input_value<T>(rank, i, seed));
  return values;
}

template <class T>
struct Wide {
  using Type = T;
};
template <>
struct Wide<bf16> {
  using Type = float;
};

/// The inputs of all ranks combined in rank order, in the type that sums are taken in.
template <class T>
std::vector<typename Wide<T>::Type> reduced(int ranks, std::int64_t count, std::uint64_t seed,
                                            Reduce reduce) {
  using W = typename Wide<T>::Type;
  std::vector<W> result;
  for (std::int64_t i = 0; i < count; ++i) {
    auto total = static_cast<W>(input_value<T>(0, i, seed));
    for (int r = 1; r < ranks; ++r) {
      const auto value = static_cast<W>(input_value<T>(r, i, seed));
      total = reduce == Reduce::sum ? static_cast<W>(total + value) : std::max(total, value);
    }
    result.push_back(total);
  }
  return result;
}

template <class T>
std::vector<T> narrow(const std::vector<typename Wide<T>::Type>& values) {
  return std::vector<T>(values.begin(), values.end());
}

/// A tensor of a queue with room for `count` elements, filled with a byte pattern that no test expects.
template <class T>
Buffer poisoned(Queue& queue, std::int64_t count) {
  Buffer buffer(queue, dtype_of<T>(), {count}, MemoryKind::communication);
  const std::vector<std::byte> poison(static_cast<std::size_t>(buffer.tensor().bytes()), std::byte{0x5a});
  if (count > 0) queue.upload(buffer.tensor(), std::span<const std::byte>(poison));
  return buffer;
}

template <class T>
Buffer uploaded(Queue& queue, const std::vector<T>& values) {
  Buffer buffer(queue, dtype_of<T>(), {std::ssize(values)}, MemoryKind::communication);
  if (!values.empty()) queue.upload(buffer.tensor(), std::span<const T>(values));
  return buffer;
}

template <class T>
std::vector<T> downloaded(Queue& queue, const Tensor& tensor) {
  std::vector<T> values(static_cast<std::size_t>(tensor.count()));
  if (!values.empty()) queue.download(std::as_writable_bytes(std::span(values)), tensor);
  return values;
}

/// What rank `from` sends to rank `to` as their message number `k`.
template <class T>
std::vector<T> message(int from, int to, int k, std::int64_t count) {
  return input<T>(100 * from + to, count, static_cast<std::uint64_t>(1000 + k));
}

/// Equal to the last bit.
template <class T>
void expect_same(const std::vector<T>& got, const std::vector<T>& expected, const char* what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::memcmp(&got[i], &expected[i], sizeof(T)), 0)
        << what << " of " << got.size() << ", element " << i;
  }
}

// What a backend must do that moves values or adds them in rank order, on `count` elements a rank.

template <class T>
void expect_all_reduce(Communicator& communicator, Queue& queue, std::int64_t count) {
  for (const Reduce reduce : {Reduce::sum, Reduce::max}) {
    if (std::is_integral_v<T> && reduce == Reduce::sum) continue;
    const Buffer buffer = uploaded(queue, input<T>(communicator.rank(), count, 1));
    communicator.all_reduce(queue, buffer.tensor(), reduce).wait(queue);
    expect_same(downloaded<T>(queue, buffer.tensor()),
                narrow<T>(reduced<T>(communicator.size(), count, 1, reduce)), "all_reduce");
  }
}

template <class T>
void expect_all_gather(Communicator& communicator, Queue& queue, std::int64_t count) {
  std::vector<T> expected;
  for (int r = 0; r < communicator.size(); ++r) {
    const std::vector<T> part = input<T>(r, count, 2);
    expected.insert(expected.end(), part.begin(), part.end());
  }
  const Buffer in = uploaded(queue, input<T>(communicator.rank(), count, 2));
  const Buffer out = poisoned<T>(queue, count * communicator.size());
  communicator.all_gather(queue, out.tensor(), in.tensor()).wait(queue);
  expect_same(downloaded<T>(queue, out.tensor()), expected, "all_gather");

  const Buffer whole = poisoned<T>(queue, count * communicator.size());
  const Tensor own = whole.tensor().rows(communicator.rank() * count, count);
  if (count > 0) queue.copy(own, in.tensor());
  communicator.all_gather(queue, whole.tensor(), own).wait(queue);
  expect_same(downloaded<T>(queue, whole.tensor()), expected, "all_gather in place");
}

template <class T>
void expect_reduce_scatter(Communicator& communicator, Queue& queue, std::int64_t count) {
  const int rank = communicator.rank(), size = communicator.size();
  if (std::is_integral_v<T>) {
    const Buffer buffer = uploaded(queue, input<T>(0, size, 3));
    const Tensor own = buffer.tensor().rows(rank, 1);
    EXPECT_THROW(communicator.reduce_scatter(queue, own, buffer.tensor()).wait(queue), InternalError);
    return;
  }
  const auto whole = narrow<T>(reduced<T>(size, count * size, 3, Reduce::sum));
  const std::vector<T> expected(whole.begin() + rank * count, whole.begin() + (rank + 1) * count);
  const std::vector<T> values = input<T>(rank, count * size, 3);
  const Buffer in = uploaded(queue, values);
  const Buffer out = poisoned<T>(queue, count);
  communicator.reduce_scatter(queue, out.tensor(), in.tensor()).wait(queue);
  expect_same(downloaded<T>(queue, out.tensor()), expected, "reduce_scatter");
  expect_same(downloaded<T>(queue, in.tensor()), values, "reduce_scatter's input");

  const Tensor own = in.tensor().rows(rank * count, count);
  communicator.reduce_scatter(queue, own, in.tensor()).wait(queue);
  expect_same(downloaded<T>(queue, own), expected, "reduce_scatter in place");
}

template <class T>
void expect_broadcast(Communicator& communicator, Queue& queue, std::int64_t count) {
  for (int root = 0; root < communicator.size(); ++root) {
    const Buffer buffer = uploaded(queue, input<T>(communicator.rank(), count, 4));
    communicator.broadcast(queue, buffer.tensor(), root).wait(queue);
    expect_same(downloaded<T>(queue, buffer.tensor()), input<T>(root, count, 4), "broadcast");
  }
}

/// Every rank sends every other one two messages of different lengths in one call and a third in another, and
/// receives as many, before it waits for anything.
template <class T>
void expect_exchange_with_all(Communicator& communicator, Queue& queue, std::int64_t count) {
  std::vector<Buffer> out, in;
  std::vector<Communicator::Message> sends[2], receives[2];
  const int rank = communicator.rank();
  const auto length = [&](int k) { return count + 3 * k; };
  for (int peer = 0; peer < communicator.size(); ++peer) {
    if (peer == rank) continue;
    for (int k = 0; k < 3; ++k) {
      out.push_back(uploaded(queue, message<T>(rank, peer, k, length(k))));
      in.push_back(poisoned<T>(queue, length(k)));
      sends[k / 2].push_back({out.back().tensor(), peer});
      receives[k / 2].push_back({in.back().tensor(), peer});
    }
  }
  Pending first = communicator.exchange(queue, sends[0], receives[0]);
  Pending second = communicator.exchange(queue, sends[1], receives[1]);
  second.wait(queue);
  first.wait(queue);
  auto arrived = in.begin();
  for (int peer = 0; peer < communicator.size(); ++peer) {
    if (peer == rank) continue;
    for (int k = 0; k < 3; ++k, ++arrived)
      expect_same(downloaded<T>(queue, arrived->tensor()), message<T>(peer, rank, k, length(k)), "exchange");
  }
}

}  // namespace verne::testing
