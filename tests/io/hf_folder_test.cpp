#include "verne/io/hf_folder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "testing.hpp"
#include "verne/base/error.hpp"
#include "verne/io/json.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::read_text;
using testing::write_text;

void write_shard(const fs::path& path, const std::vector<std::string>& names, float value) {
  fs::create_directories(path.parent_path());
  std::vector<TensorInfo> tensors;
  for (const std::string& name : names) tensors.push_back({name, DType::f32, {2}});
  SafetensorsWriter writer(path, tensors);
  for (const TensorInfo& tensor : tensors) {
    const std::array<float, 2> data = {value, value + 1};
    writer.write(tensor, 0, std::as_bytes(std::span(data)));
  }
}
void write_index(const fs::path& folder, const Json& weight_map) {
  write_text(folder / "model.safetensors.index.json", Json{{"weight_map", weight_map}}.dump());
}
std::string refusal(const fs::path& folder) {
  try {
    const HfFolder opened(folder);
  } catch (const UserError& error) {
    return error.what();
  }
  return "accepted";
}
std::array<float, 2> values(const TensorSource& source, const std::string& name) {
  std::array<float, 2> data{};
  const TensorInfo* tensor = source.find(name);
  EXPECT_TRUE(tensor) << name;
  if (tensor) source.read(*tensor, 0, std::as_writable_bytes(std::span(data)));
  return data;
}

TEST(HfFolder, OneFileOrWhatTheIndexNames) {
  const testing::TemporaryDirectory directory;
  const fs::path& folder = directory.path();
  write_shard(folder / "one.safetensors", {"a", "b"}, 1);
  write_shard(folder / "two.safetensors", {"c"}, 3);
  write_shard(folder / "consolidated.safetensors", {"other"}, 5);
  write_index(folder, {{"c", "two.safetensors"}, {"a", "one.safetensors"}, {"b", "one.safetensors"}});
  {
    const HfFolder opened(folder);
    EXPECT_EQ(opened.tensors().size(), 3u);
    EXPECT_EQ(values(opened, "a"), (std::array<float, 2>{1, 2}));
    EXPECT_EQ(values(opened, "c"), (std::array<float, 2>{3, 4}));
    EXPECT_EQ(opened.find("other"), nullptr);
    EXPECT_EQ(opened.files().size(), 3u);
  }
  write_shard(folder / "model.safetensors", {"d"}, 7);
  const HfFolder opened(folder);
  EXPECT_EQ(opened.tensors().size(), 1u);
  EXPECT_EQ(values(opened, "d"), (std::array<float, 2>{7, 8}));
  EXPECT_THAT([&] { opened.config_text(); }, ::testing::ThrowsMessage<UserError>(HasSubstr("config.json")));
}

TEST(HfFolder, IndexAndShardsMustAgree) {
  const testing::TemporaryDirectory directory;
  const fs::path folder = directory.path() / "m";
  EXPECT_THAT(refusal(folder), HasSubstr("no such folder"));
  fs::create_directory(folder);
  EXPECT_THAT(refusal(folder), HasSubstr("no weights"));
  write_shard(folder / "one.safetensors", {"a", "b"}, 1);
  write_shard(folder / "two.safetensors", {"c"}, 1);
  write_index(folder, {{"a", "one.safetensors"}, {"b", "one.safetensors"}, {"c", "one.safetensors"}});
  EXPECT_THAT(refusal(folder), AllOf(HasSubstr("\"c\""), HasSubstr("no shard holds it")));
  write_index(folder, {{"a", "one.safetensors"}, {"b", "two.safetensors"}, {"c", "two.safetensors"}});
  EXPECT_THAT(refusal(folder), AllOf(HasSubstr("\"b\""), HasSubstr("it is in")));
  write_index(folder, {{"a", "one.safetensors"}});
  EXPECT_THAT(refusal(folder), HasSubstr("does not name \"b\""));
  write_index(folder, {{"a", "one.safetensors"}, {"c", "three.safetensors"}});
  EXPECT_THAT(refusal(folder), HasSubstr("\"three.safetensors\", which is not there"));
  write_index(folder, {{"a", 1}});
  EXPECT_THAT(refusal(folder), HasSubstr("expected the name of a file"));
  write_index(folder, Json::object());
  EXPECT_THAT(refusal(folder), HasSubstr("empty"));
  write_text(folder / "model.safetensors.index.json", "[]");
  EXPECT_THAT(refusal(folder), HasSubstr("weight_map"));
  write_text(folder / "model.safetensors.index.json",
             R"({"weight_map":{"a":"one.safetensors","a":"two.safetensors"}})");
  EXPECT_THAT(refusal(folder), HasSubstr("twice"));
  write_shard(folder / "two.safetensors", {"b", "c"}, 1);
  write_index(folder, {{"a", "one.safetensors"}, {"b", "one.safetensors"}, {"c", "two.safetensors"}});
  EXPECT_THAT(refusal(folder), AllOf(HasSubstr("\"b\" is in"), HasSubstr("and in")));
}

TEST(HfFolder, IndexMayNotLeaveTheFolder) {
  const testing::TemporaryDirectory directory;
  const fs::path folder = directory.path() / "m";
  write_shard(directory.path() / "x.safetensors", {"a"}, 1);
  write_shard(folder / "sub" / "in.safetensors", {"a"}, 1);
  fs::create_symlink("../x.safetensors", folder / "link.safetensors");
  for (const std::string& file :
       {std::string("../x.safetensors"), (directory.path() / "x.safetensors").string(),
        std::string("link.safetensors"), std::string("sub/../../x.safetensors"), std::string()}) {
    write_index(folder, {{"a", file}});
    EXPECT_THAT(refusal(folder), HasSubstr("not inside the folder")) << file;
  }
  write_index(folder, {{"a", "sub/in.safetensors"}});
  EXPECT_EQ(refusal(folder), "accepted");
}

TEST(HfFolder, HubCacheIsFoundByItsId) {
  const testing::TemporaryDirectory directory;
  const fs::path repository = directory.path() / "hub" / "models--Org--name-1";
  write_text(repository / "refs" / "main", "abc123\n");
  write_shard(repository / "blobs" / "f00", {"a"}, 1);
  write_shard(directory.path() / "elsewhere.safetensors", {"a"}, 1);
  const fs::path snapshot = repository / "snapshots" / "abc123";
  write_index(snapshot, {{"a", "model-00001-of-00001.safetensors"}});
  fs::create_symlink("../../blobs/f00", snapshot / "model-00001-of-00001.safetensors");
  fs::create_directories(repository / "snapshots" / "other");
  unsetenv("HF_HUB_CACHE");
  unsetenv("HUGGINGFACE_HUB_CACHE");
  setenv("HF_HOME", directory.path().c_str(), 1);
  EXPECT_EQ(resolve_model_folder("Org/name-1"), snapshot);
  EXPECT_EQ(values(HfFolder(snapshot), "a"), (std::array<float, 2>{1, 2}));
  EXPECT_EQ(resolve_model_folder(directory.path().string()), directory.path());
  EXPECT_THAT([] { resolve_model_folder("Org/none"); },
              ::testing::ThrowsMessage<UserError>(
                  AllOf(HasSubstr("models--Org--none"), HasSubstr("hf download Org/none"))));
  for (const char* name : {"", "../x", "/nonexistent/x", "a/b/c", "Org/../x"})
    EXPECT_THROW(resolve_model_folder(name), UserError) << name;
  write_text(repository / "refs" / "main", "../../../..");
  EXPECT_THROW(resolve_model_folder("Org/name-1"), UserError);
  fs::remove(repository / "refs" / "main");
  fs::remove(repository / "snapshots" / "other");
  EXPECT_EQ(resolve_model_folder("Org/name-1"), snapshot) << "the only snapshot";
  fs::remove(snapshot / "model-00001-of-00001.safetensors");
  fs::create_symlink(directory.path() / "elsewhere.safetensors",
                     snapshot / "model-00001-of-00001.safetensors");
  EXPECT_THAT(refusal(snapshot), HasSubstr("not inside the folder"));
  unsetenv("HF_HOME");
}

TEST(PlanHfShards, FillsGreedilyInOrder) {
  const auto plan = [](std::vector<std::int64_t> sizes, std::int64_t max) {
    std::vector<TensorInfo> tensors;
    for (std::size_t i = 0; i < sizes.size(); ++i)
      tensors.push_back({std::string(1, static_cast<char>('a' + i)), DType::u8, {sizes[i]}});
    std::string text;
    for (const HfShard& shard : plan_hf_shards(tensors, max)) {
      text += shard.file + ":";
      for (const TensorInfo& tensor : shard.tensors) text += tensor.name;
      text += " ";
    }
    return text;
  };
  EXPECT_EQ(plan({3, 4, 3}, 10), "model.safetensors:abc ");
  EXPECT_EQ(plan({3, 4, 4, 20, 1, 9}, 10),
            "model-00001-of-00004.safetensors:ab model-00002-of-00004.safetensors:c "
            "model-00003-of-00004.safetensors:d model-00004-of-00004.safetensors:ef ");
  EXPECT_EQ(plan({}, 10), "model.safetensors: ");
}

TEST(HfFolderWriter, WritesShardsIndexAndSideFiles) {
  const testing::TemporaryDirectory directory;
  const fs::path folder = directory.path() / "out";
  const HostGroup group;
  const std::vector<TensorInfo> tensors = {
      {"b", DType::f32, {2}}, {"a", DType::f32, {2}}, {"c", DType::f32, {2}}};
  const std::array<float, 2> data = {5, 6};
  {
    HfFolderWriter writer(group, folder, tensors, 16);
    writer.write(tensors[0], 0, std::as_bytes(std::span(data)));
    EXPECT_FALSE(fs::exists(folder));
  }
  EXPECT_TRUE(fs::is_empty(directory.path())) << "nothing stays of what was not published";
  HfFolderWriter writer(group, folder, tensors, 16);
  for (const TensorInfo& tensor : tensors) {
    writer.write(tensor, 4, std::as_bytes(std::span(data)).subspan(4));
    writer.write(tensor, 0, std::as_bytes(std::span(data)).first(4));
  }
  writer.add_file("config.json", "{}");
  EXPECT_THROW(writer.add_file("../x", ""), InternalError);
  writer.publish();
  const HfFolder opened(folder);
  for (const TensorInfo& tensor : tensors) EXPECT_EQ(values(opened, tensor.name), data);
  EXPECT_EQ(opened.config_text(), "{}");
  EXPECT_EQ(
      read_text(folder / "model.safetensors.index.json"),
      "{\n  \"metadata\": {\n    \"total_size\": 24\n  },\n  \"weight_map\": {\n    \"b\": "
      "\"model-00001-of-00002.safetensors\",\n    \"a\": \"model-00001-of-00002.safetensors\",\n    \"c\": "
      "\"model-00002-of-00002.safetensors\"\n  }\n}\n");
}

TEST(SideFiles, AreThoseThatTravel) {
  const testing::TemporaryDirectory directory;
  for (const char* name : {"tokenizer.json", "generation_config.json", "README.md", "config.json"})
    write_text(directory.path() / name, name);
  EXPECT_EQ(side_files(directory.path()),
            (std::vector<std::string>{"tokenizer.json", "generation_config.json"}));
  EXPECT_EQ(read_side_file(directory.path(), "tokenizer.json"), "tokenizer.json");
  EXPECT_EQ(read_side_file(directory.path(), "merges.txt"), std::nullopt);
}

TEST(HfFolder, OpensGoldenFolders) {
  const auto shared = testing::shared_dir();
  if (!shared) GTEST_SKIP() << "the shared golden cases are not there";
  const HfFolder llama(*shared / "golden" / "llama");
  const TensorInfo* embedding = llama.find("model.embed_tokens.weight");
  ASSERT_TRUE(embedding);
  EXPECT_EQ(embedding->dtype, DType::f32);
  const Json config = parse_json(llama.config_text(), "config.json");
  EXPECT_EQ(embedding->shape,
            (Shape{config["vocab_size"].get<std::int64_t>(), config["hidden_size"].get<std::int64_t>()}));
  const HfFolder sharded(*shared / "golden" / "deepseek_v3_fp8");
  EXPECT_EQ(sharded.files().size(), 3u);
  EXPECT_TRUE(sharded.unsupported().empty());
}

}  // namespace
}  // namespace verne
