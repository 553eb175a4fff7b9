#include "verne/io/shard.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>

#include "testing.hpp"
#include "verne/base/error.hpp"
#include "verne/io/file.hpp"
#include "verne/io/hdf5.hpp"

namespace verne {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

void write_shard(const std::filesystem::path& path,
                 std::int64_t memory_limit_bytes = ShardWriter::kMemoryLimitBytes) {
  const HostGroup alone;
  ShardWriter writer(path, alone,
                     {.tokenizer_hash = "abc",
                      .chat_template = "qwen3",
                      .tokenizer_files = {{"tokenizer.json", "{}"}},
                      .attributes = {{"end_token", "<|im_end|>"}}},
                     memory_limit_bytes);
  writer.append(std::array<std::uint32_t, 3>{5, 6, 7}, std::array<std::uint8_t, 3>{0, 0, 1}, "{\"id\":1}");
  writer.append({}, {}, "{}");
  writer.append(std::array<std::uint32_t, 2>{8, 151'935}, std::array<std::uint8_t, 2>{0, 1},
                "{\"name\":\"größer\"}");
  const auto total = writer.finish();
  EXPECT_EQ(total.documents, 3);
  EXPECT_EQ(total.tokens, 5);
  EXPECT_EQ(total.trained_tokens, 2);
}

void expect_content(const ShardReader& shard) {
  EXPECT_THAT(shard.offsets(), ElementsAre(0, 3, 3, 5));
  std::vector<std::uint32_t> tokens(5);
  std::vector<std::uint8_t> mask(5);
  shard.read_tokens(0, tokens);
  shard.read_loss_mask(0, mask);
  EXPECT_THAT(tokens, ElementsAre(5, 6, 7, 8, 151'935));
  EXPECT_THAT(mask, ElementsAre(0, 0, 1, 0, 1));
  EXPECT_THAT(shard.metadata(0, 3), ElementsAre("{\"id\":1}", "{}", "{\"name\":\"größer\"}"));
}

TEST(Shard, ReadsBackWhatWasWritten) {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "made" / "train.h5";
  write_shard(path);
  const ShardReader shard(path, "abc");
  expect_content(shard);
  EXPECT_EQ(shard.documents(), 3);
  EXPECT_EQ(shard.tokens(), 5);
  EXPECT_EQ(shard.trained_tokens(), 2);
  EXPECT_EQ(shard.info().tokenizer_hash, "abc");
  EXPECT_EQ(shard.info().chat_template, "qwen3");
  EXPECT_EQ(shard.info().attributes.at("end_token"), "<|im_end|>");
  EXPECT_EQ(shard.tokenizer_files().at("tokenizer.json"), "{}");
  std::array<std::uint32_t, 2> some{};
  shard.read_tokens(2, some);
  EXPECT_THAT(some, ElementsAre(7, 8));
  EXPECT_TRUE(is_token_shard(path));
  EXPECT_FALSE(is_token_shard(directory.path() / "none.h5"));
}

TEST(Shard, SpoolingToDiskChangesNothing) {
  const testing::TemporaryDirectory directory;
  write_shard(directory.path() / "memory.h5");
  write_shard(directory.path() / "disk.h5", 1);
  EXPECT_TRUE(testing::read_text(directory.path() / "memory.h5") ==
              testing::read_text(directory.path() / "disk.h5"));
  expect_content(ShardReader(directory.path() / "disk.h5"));
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory.path()))
    names.push_back(entry.path().filename());
  EXPECT_THAT(names, ::testing::UnorderedElementsAre("memory.h5", "disk.h5"));
}

TEST(Shard, NoDocumentsAreAShardToo) {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "empty.h5";
  const HostGroup alone;
  ShardWriter(path, alone, {}).finish();
  const ShardReader shard(path, "any tokenizer");
  EXPECT_EQ(shard.documents(), 0);
  EXPECT_THAT(shard.offsets(), ElementsAre(0));
  EXPECT_TRUE(shard.metadata(0, 0).empty());
}

TEST(Shard, NothingAppearsWithoutFinish) {
  const testing::TemporaryDirectory directory;
  {
    const HostGroup alone;
    ShardWriter writer(directory.path() / "train.h5", alone, {});
    writer.append(std::array<std::uint32_t, 1>{5}, std::array<std::uint8_t, 1>{0}, "{}");
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

/// Changes bytes of a dataset in place.
template <class T>
void overwrite(const std::filesystem::path& path, const std::string& dataset, std::int64_t element, T value) {
  const std::int64_t at = Hdf5File::open(path).dataset(dataset).file_offset();
  File::open_write(path).write_at(at + element * static_cast<std::int64_t>(sizeof(T)),
                                  std::as_bytes(std::span(&value, 1)));
}

std::string refusal(const std::filesystem::path& path, const std::optional<std::string>& hash = {}) {
  try {
    const ShardReader shard(path, hash);
    std::vector<std::uint8_t> mask(static_cast<std::size_t>(shard.tokens()));
    shard.read_loss_mask(0, mask);
  } catch (const UserError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Shard, WrongContentIsRefusedByName) {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "train.h5";
  write_shard(path);
  EXPECT_EQ(refusal(path), "accepted");
  EXPECT_THAT(refusal(path, "other"),
              HasSubstr("made by another tokenizer (hash abc, the model's is other)"));
  overwrite(path, "/document_offsets", 1, std::uint64_t{4});
  EXPECT_THAT(refusal(path), HasSubstr("/document_offsets falls from 4 to 3 at document 1"));
  overwrite(path, "/document_offsets", 1, std::uint64_t{3});
  overwrite(path, "/document_offsets", 0, std::uint64_t{1});
  EXPECT_THAT(refusal(path), HasSubstr("begins with 1"));
  overwrite(path, "/document_offsets", 0, std::uint64_t{0});
  overwrite(path, "/document_offsets", 3, ~std::uint64_t{0});
  EXPECT_THAT(refusal(path), HasSubstr("ends with 18446744073709551615, but there are 5 tokens"));
  overwrite(path, "/document_offsets", 3, std::uint64_t{5});
  overwrite(path, "/loss_mask", 2, std::uint8_t{2});
  EXPECT_THAT(refusal(path), HasSubstr("/loss_mask holds 2 at token 2"));
}

/// A file with the parts of a shard, sizes and version as given.
void write_raw(const std::filesystem::path& path, std::int64_t version, std::int64_t tokens,
               std::int64_t mask, Hdf5Type token_type, std::int64_t strings) {
  Hdf5File file = Hdf5File::create(path);
  file.create_dataset("/tokens", token_type, std::array{tokens});
  file.create_dataset("/loss_mask", Hdf5Type::u8, std::array{mask});
  const std::array<std::uint64_t, 2> offsets{0, 4};
  file.create_dataset("/document_offsets", Hdf5Type::u64, std::array<std::int64_t, 1>{2})
      .write(0, std::as_bytes(std::span(offsets)));
  file.create_strings("/metadata", strings);
  file.write_attribute("/", "format", "verne token shard");
  file.write_attribute("/", "format_version", version);
  file.write_attribute("/", "tokenizer_hash", "");
  file.write_attribute("/", "template", "none");
  file.write_attribute("/", "documents", std::int64_t{1});
  file.write_attribute("/", "tokens", std::int64_t{4});
  file.write_attribute("/", "trained_tokens", std::int64_t{0});
  file.close();
}

TEST(Shard, WrongStructureIsRefusedByName) {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "raw.h5";
  write_raw(path, 2, 4, 4, Hdf5Type::u32, 1);
  EXPECT_THAT(refusal(path), HasSubstr("format version 2, this program reads version 1"));
  write_raw(path, 1, 3, 4, Hdf5Type::u32, 1);
  EXPECT_THAT(refusal(path), HasSubstr("/tokens has 3 elements, 4 expected"));
  write_raw(path, 1, 4, 5, Hdf5Type::u32, 1);
  EXPECT_THAT(refusal(path), HasSubstr("/loss_mask has 5 elements, 4 expected"));
  write_raw(path, 1, 4, 4, Hdf5Type::f32, 1);
  EXPECT_THAT(refusal(path), HasSubstr("/tokens must be a one-dimensional array of u32"));
  write_raw(path, 1, 4, 4, Hdf5Type::u32, 2);
  EXPECT_THAT(refusal(path), HasSubstr("/metadata has 2 strings for 1 documents"));
  Hdf5File::create(path).close();
  EXPECT_THAT(refusal(path), HasSubstr("not a token shard"));
}

TEST(Shard, OpensInH5py) {
  if (std::system("python3 -c 'import h5py' 2>/dev/null") != 0) GTEST_SKIP() << "python3 has no h5py";
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "train.h5";
  write_shard(path);
  const std::string command =
      "python3 -c \"import h5py; f = h5py.File('" + path.string() +
      "'); assert f['tokens'][:].tolist() == [5, 6, 7, 8, 151935]; assert f['loss_mask'][:].tolist() == [0, "
      "0, 1, 0, 1]; "
      "assert f['document_offsets'][:].tolist() == [0, 3, 3, 5]; assert f['metadata'].asstr()[2] == "
      "'{\\\"name\\\":\\\"größer\\\"}'; assert f.attrs['template'].decode() == 'qwen3' if "
      "isinstance(f.attrs['template'], "
      "bytes) else f.attrs['template'] == 'qwen3'\"";
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace verne
