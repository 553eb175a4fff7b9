#include "verne/checkpoint/inspect.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <sstream>

#include "layouts.hpp"
#include "verne/base/error.hpp"
#include "verne/io/shard.hpp"

namespace verne {
namespace {

using ::testing::HasSubstr;
using testing::save_alone;

std::string shown(const std::filesystem::path& path, InspectVerify verify) {
  std::ostringstream out;
  inspect_show(path, verify, out);
  return out.str();
}

TEST(Inspect, ShowsAndVerifiesACheckpoint) {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  save_alone(path, 3, CheckpointKind::resumable);
  const std::string text = shown(path, InspectVerify::yes);
  EXPECT_THAT(text, HasSubstr("step 3, resumable"));
  EXPECT_THAT(text, HasSubstr("/model: 3 tensors, 76299 elements, 152.6 kB"));
  EXPECT_THAT(text, HasSubstr("model.layers.0.small.weight  bf16  [3, 5]"));
  EXPECT_THAT(text, HasSubstr("\"consumed_samples\": 24"));
  EXPECT_THAT(text, HasSubstr("verified: every checksum agrees"));
}

TEST(Inspect, ComparesCheckpoints) {
  const testing::TemporaryDirectory directory;
  const auto a = directory.path() / "a.h5", b = directory.path() / "b.h5";
  save_alone(a, 3, CheckpointKind::resumable);
  save_alone(b, 4, CheckpointKind::resumable, 1);
  std::ostringstream same, other;
  EXPECT_EQ(inspect_compare(a, a, same), Comparison::equal);
  EXPECT_THAT(same.str(), HasSubstr("/model: 3 of 3 tensors equal"));
  EXPECT_EQ(inspect_compare(a, b, other), Comparison::different);
  // Neighbouring seeds differ by 31 / 4, or by (31 - 251) / 4 where the pattern wraps.
  EXPECT_THAT(other.str(), HasSubstr("/optimizer/exp_avg/model.big.weight: largest difference 55, relative"));
}

TEST(Inspect, ShowsAndComparesShards) {
  const testing::TemporaryDirectory directory;
  const HostGroup alone;
  const auto write = [&](const char* name, std::uint32_t token, std::uint8_t first_mask) {
    ShardWriter writer(
        directory.path() / name, alone,
        {.tokenizer_hash = "h", .chat_template = "none", .tokenizer_files = {}, .attributes = {}});
    writer.append(std::array<std::uint32_t, 2>{1, token}, std::array<std::uint8_t, 2>{first_mask, 1}, "{}");
    writer.finish();
    return directory.path() / name;
  };
  const auto a = write("a.h5", 2, 0), b = write("b.h5", 3, 0), broken = write("c.h5", 2, 1);
  EXPECT_THAT(shown(a, InspectVerify::yes), HasSubstr("documents 1, tokens 2, trained tokens 1"));
  EXPECT_THROW(shown(broken, InspectVerify::yes), UserError);
  std::ostringstream out;
  EXPECT_EQ(inspect_compare(a, a, out), Comparison::equal);
  EXPECT_EQ(inspect_compare(a, b, out), Comparison::different);
  EXPECT_THAT(out.str(), HasSubstr("document 0: tokens differ"));
}

TEST(Inspect, RefusesWhatItDoesNotKnow) {
  const testing::TemporaryDirectory directory;
  testing::write_text(directory.path() / "x.txt", "text");
  EXPECT_THROW(shown(directory.path() / "x.txt", InspectVerify::no), UserError);
  EXPECT_THROW(shown(directory.path() / "none", InspectVerify::no), UserError);
}

}  // namespace
}  // namespace verne
