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

/// Equal to the last bit.
template <class T>
void expect_same(const std::vector<T>& got, const std::vector<T>& expected, const char* what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::memcmp(&got[i], &expected[i], sizeof(T)), 0)
        << what << " of " << got.size() << ", element " << i;
  }
}

}  // namespace verne::testing
