#include "verne/checkpoint/index.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"

namespace verne {
namespace {

using ::testing::HasSubstr;

CheckpointIndex sample() {
  CheckpointIndex index;
  index.file_bytes = 10'000;
  index.groups[0] = {{{"a.weight", DType::bf16, {3, 5}}, 2048},
                     {{"empty", DType::f32, {0, 9}}, 0},
                     {{"scalar", DType::f8_e4m3, {}}, 9'999}};
  index.groups[2] = {{{"a.weight", DType::f32, {3, 5}}, 4096}};
  return index;
}

std::string refusal(std::vector<std::byte> bytes) {
  if (bytes.size() >= 16) {
    const std::uint64_t hash = xxh3(std::span(bytes).subspan(16));
    std::memcpy(bytes.data() + 8, &hash, 8);
  }
  try {
    parse_index(bytes, "x.h5");
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("x.h5: "));
    return error.what();
  }
  return "accepted";
}
std::string refusal(const std::function<void(CheckpointIndex&)>& change) {
  CheckpointIndex index = sample();
  change(index);
  return refusal(encode_index(index));
}

TEST(CheckpointIndex, ComesBackWhole) {
  const CheckpointIndex index = sample(), back = parse_index(encode_index(index), "x.h5");
  EXPECT_EQ(back.file_bytes, 10'000);
  EXPECT_EQ(encoded_bytes(index), std::ssize(encode_index(index)));
  for (std::size_t group = 0; group < index.groups.size(); ++group) {
    ASSERT_EQ(back.groups[group].size(), index.groups[group].size());
    for (std::size_t i = 0; i < index.groups[group].size(); ++i) {
      EXPECT_EQ(back.groups[group][i].info.name, index.groups[group][i].info.name);
      EXPECT_EQ(back.groups[group][i].info.dtype, index.groups[group][i].info.dtype);
      EXPECT_EQ(back.groups[group][i].info.shape, index.groups[group][i].info.shape);
      EXPECT_EQ(back.groups[group][i].offset, index.groups[group][i].offset);
    }
  }
}

TEST(CheckpointIndex, DamageIsFound) {
  const std::vector<std::byte> good = encode_index(sample());
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::vector<std::byte> bytes = good;
    bytes[at] ^= std::byte{0x20};
    EXPECT_THROW(parse_index(bytes, "x.h5"), UserError) << at;
  }
  for (std::size_t length = 0; length < good.size(); ++length) {
    EXPECT_NE(
        refusal(std::vector<std::byte>(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length))),
        "accepted")
        << length;
  }
  std::vector<std::byte> longer = good;
  longer.resize(longer.size() + 3);
  EXPECT_THAT(refusal(longer), HasSubstr("goes on for 3 bytes"));
}

// What hashes well but cannot be.
TEST(CheckpointIndex, HostileContentIsRefused) {
  EXPECT_EQ(refusal([](CheckpointIndex&) {}), "accepted");
  EXPECT_THAT(refusal([](CheckpointIndex& index) { index.groups[0][1].info.name = "a.weight"; }),
              HasSubstr("a.weight twice or out of order"));
  EXPECT_THAT(refusal([](CheckpointIndex& index) { index.groups[0][1].info.name = "Z"; }),
              HasSubstr("Z twice or out of order"));
  EXPECT_THAT(refusal([](CheckpointIndex& index) { index.groups[2][0].info.name = "a/b"; }),
              HasSubstr("a tensor named \"a/b\""));
  EXPECT_THAT(refusal([](CheckpointIndex& index) { index.groups[2][0].info.name = ""; }),
              HasSubstr("a tensor named \"\""));
  EXPECT_THAT(refusal([](CheckpointIndex& index) { index.groups[2][0].offset = 9'941; }),
              HasSubstr("at byte 9941, which leaves the file of 10000 bytes"));
  EXPECT_EQ(refusal([](CheckpointIndex& index) { index.groups[2][0].offset = 9'940; }), "accepted");
  EXPECT_THAT(refusal([](CheckpointIndex& index) { index.groups[2][0].offset = -1; }),
              HasSubstr("at byte -1"));
  EXPECT_THAT(refusal([](CheckpointIndex& index) { index.file_bytes = -5; }),
              HasSubstr("a file of -5 bytes"));
  const std::int64_t huge = std::int64_t{1} << 40;
  EXPECT_THAT(refusal([&](CheckpointIndex& index) {
                index.groups[2][0].info.shape = {huge, huge, huge};
              }),
              HasSubstr("larger than any file"));
  EXPECT_THAT(refusal([&](CheckpointIndex& index) {
                index.groups[0][1].info.shape = {0, huge, huge};
              }),
              HasSubstr("larger than any file"));
  EXPECT_THAT(refusal([](CheckpointIndex& index) { index.groups[0][1].offset = 5; }), HasSubstr("at byte 5"));
}

TEST(CheckpointIndex, CountsDoNotAskForMemory) {
  std::vector<std::byte> bytes = encode_index(sample());
  for (const std::uint64_t count : {~std::uint64_t{0}, std::uint64_t{1} << 60, std::uint64_t{1000}}) {
    for (std::size_t group = 0; group < 4; ++group) {
      std::vector<std::byte> hostile = bytes;
      std::memcpy(hostile.data() + 24 + 8 * group, &count, 8);
      EXPECT_NE(refusal(hostile), "accepted");
    }
  }
  std::vector<std::byte> odd = bytes;
  const std::uint32_t dimensions = 5;
  std::memcpy(odd.data() + 24 + 32 + 8, &dimensions, 4);
  EXPECT_THAT(refusal(odd), HasSubstr("a tensor of 5 dimensions"));
}

}  // namespace
}  // namespace verne
