#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <mpi.h>

#include <atomic>
#include <cstring>

#include "layouts.hpp"
#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "verne/checkpoint/frozen.hpp"

namespace verne {
namespace {

using ::testing::HasSubstr;

/// Float32 tensors in memory; counts the bytes that are read.
struct MemorySource final : TensorSource {
  MemorySource() {
    for (std::size_t t = 0; t < infos.size(); ++t) {
      auto& one = values.emplace_back(static_cast<std::size_t>(infos[t].shape.count()));
      for (std::size_t i = 0; i < one.size(); ++i)
        one[i] = testing::value_at(static_cast<int>(t), static_cast<std::int64_t>(i));
    }
  }
  const std::vector<TensorInfo>& tensors() const override { return infos; }
  std::string origin() const override { return "base"; }
  void read(const TensorInfo& tensor, std::int64_t offset, std::span<std::byte> to) const override {
    for (std::size_t t = 0; t < infos.size(); ++t)
      if (infos[t].name == tensor.name)
        std::memcpy(to.data(), reinterpret_cast<const std::byte*>(values[t].data()) + offset, to.size());
    bytes_read += std::ssize(to);
  }
  /// XXH3 of the XXH3 of each block.
  std::uint64_t checksum(std::size_t tensor) const {
    std::vector<std::uint64_t> blocks;
    auto bytes = std::as_bytes(std::span(values[tensor]));
    for (; !bytes.empty(); bytes = bytes.subspan(std::min<std::size_t>(kBlockBytes, bytes.size())))
      blocks.push_back(xxh3(bytes.first(std::min<std::size_t>(kBlockBytes, bytes.size()))));
    return xxh3(std::as_bytes(std::span(blocks)));
  }

  std::vector<TensorInfo> infos{{"big", DType::f32, {testing::kBigRows, testing::kBigColumns}},
                                {"small", DType::f32, {3, 5}},
                                {"other", DType::f32, {700}}};
  std::vector<std::vector<float>> values;
  mutable std::atomic<std::int64_t> bytes_read = 0;
};

struct Frozen : ::testing::Test {
  HostGroup group{MPI_COMM_WORLD};
  MemorySource source;
  std::vector<std::string> names{"small", "big"};
  std::int64_t all_bytes = source.infos[0].bytes() + source.infos[1].bytes();
};

TEST_F(Frozen, ChecksumsAreThoseOfTheBlocksAndEachIsReadOnce) {
  const HashedSource hashed(source);
  EXPECT_THAT(hashed.checksums(group, names), ::testing::ElementsAre(source.checksum(1), source.checksum(0)));
  EXPECT_EQ(group.sum(source.bytes_read.load()), all_bytes);
}

TEST_F(Frozen, WhatWasLoadedIsNotReadAgain) {
  const HashedSource hashed(source);
  CpuQueue queue;
  testing::Parts parts;
  parts.add(queue, "big", testing::kBigRows, testing::kBigColumns, DType::f32, DType::f32,
            testing::Cut::columns, group.rank(), group.size());
  load_parts(hashed, group, queue, parts.parts);
  EXPECT_EQ(parts.wrong(0), 0);
  EXPECT_THAT(hashed.checksums(group, names), ::testing::ElementsAre(source.checksum(1), source.checksum(0)));
  EXPECT_EQ(group.sum(source.bytes_read.load()), all_bytes);
}

TEST_F(Frozen, ChangedTensorsAreNamedOnEveryRank) {
  const std::vector<FrozenTensor> frozen{{"small", source.checksum(1), "/models/base"},
                                         {"big", source.checksum(0), "/models/base"}};
  check_frozen(frozen, HashedSource(source), group);
  source.values[0][kBlockBytes / 4 + 1] += 1;  // in the second block
  try {
    check_frozen(frozen, HashedSource(source), group);
    FAIL() << "a changed tensor was accepted";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("base: 1 of 2 tensors are not what they were"));
    EXPECT_THAT(error.what(), HasSubstr("(big)"));
  }
  EXPECT_THROW(check_frozen({{"none", 0, ""}}, HashedSource(source), group), UserError);
}

}  // namespace
}  // namespace verne
