#include <gtest/gtest.h>
#include <mpi.h>

#include <numeric>
#include <optional>

#include "testing.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/io/shard.hpp"

namespace verne {
namespace {

/// Documents [first, last) of a made-up data set: lengths, tokens, masks and metadata follow from the index.
void append_documents(ShardWriter& writer, std::int64_t first, std::int64_t last) {
  for (std::int64_t document = first; document < last; ++document) {
    std::vector<std::uint32_t> tokens(static_cast<std::size_t>(document * 7 % 13));
    std::iota(tokens.begin(), tokens.end(), static_cast<std::uint32_t>(document * 100));
    std::vector<std::uint8_t> mask(tokens.size());
    for (std::size_t i = 1; i < mask.size(); ++i) mask[i] = static_cast<std::uint8_t>(i % 3 != 0);
    writer.append(tokens, mask,
                  "{\"index\":" + std::string(static_cast<std::size_t>(document % 50), '1') + "0}");
  }
}

TEST(ShardMpi, SameBytesForAnyNumberOfRanks) {
  constexpr std::int64_t kDocuments = 10'000;  // more than two batches of metadata
  const HostGroup group(MPI_COMM_WORLD), alone;
  std::optional<testing::TemporaryDirectory> directory;
  if (group.rank() == 0) directory.emplace();
  const std::filesystem::path folder = group.broadcast_text(directory ? directory->path().string() : "", 0);
  const ShardInfo info{.tokenizer_hash = "abc",
                       .chat_template = "none",
                       .tokenizer_files = {{"tokenizer.json", "{}"}},
                       .attributes = {}};
  {
    ShardWriter writer(folder / "together.h5", group, info, 20'000);
    append_documents(writer, kDocuments * group.rank() / group.size(),
                     kDocuments * (group.rank() + 1) / group.size());
    EXPECT_EQ(writer.finish().documents, kDocuments);
  }
  if (group.rank() == 0) {
    ShardWriter writer(folder / "alone.h5", alone, info);
    append_documents(writer, 0, kDocuments);
    writer.finish();
    EXPECT_TRUE(testing::read_text(folder / "together.h5") == testing::read_text(folder / "alone.h5"));
  }
  group.barrier();
  const ShardReader shard(folder / "together.h5", "abc");
  const std::int64_t document = 9'999;
  const std::size_t length = document * 7 % 13;
  EXPECT_EQ(shard.offsets()[document + 1] - shard.offsets()[document], length);
  std::vector<std::uint32_t> tokens(length);
  shard.read_tokens(static_cast<std::int64_t>(shard.offsets()[document]), tokens);
  EXPECT_EQ(tokens.back(), 999'900u + length - 1);
  EXPECT_EQ(shard.metadata(9'998, 1)[0], "{\"index\":" + std::string(48, '1') + "0}");
  group.barrier();
}

TEST(ShardMpi, RanksWithoutDocuments) {
  const HostGroup group(MPI_COMM_WORLD);
  std::optional<testing::TemporaryDirectory> directory;
  if (group.rank() == 0) directory.emplace();
  const std::filesystem::path folder = group.broadcast_text(directory ? directory->path().string() : "", 0);
  ShardWriter writer(folder / "last.h5", group, {});
  if (group.rank() == group.size() - 1) append_documents(writer, 1, 3);
  writer.finish();
  const ShardReader shard(folder / "last.h5");
  EXPECT_EQ(shard.documents(), 2);
  EXPECT_EQ(shard.tokens(), 8);
  EXPECT_EQ(shard.trained_tokens(), 4);
  group.barrier();
}

}  // namespace
}  // namespace verne
