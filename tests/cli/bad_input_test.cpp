// Bad input: one clear message on standard error, exit code 2, no hang, nothing under a final name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <sstream>

#include "cli.hpp"

namespace verne::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

int error_lines(const std::string& errors) {
  int found = 0;
  std::istringstream text(errors);
  for (std::string line; std::getline(text, line);)
    found += line.starts_with("error:") || line.starts_with("internal error");
  return found;
}

class BadInput : public ::testing::Test {
 protected:
  void SetUp() override {
    write_small_case(root());
    copy_folder(small_model(), root() / "hf");
  }
  const fs::path& root() const { return directory_.path(); }
  fs::path weights() const { return root() / "hf" / "model.safetensors"; }

  /// Refused alone and on two ranks with exactly one error, which holds all of `words`.
  void refused(const std::string& arguments, const std::vector<std::string>& words, int exit_code = 2) const {
    for (const int ranks : {1, 2}) refused_on(ranks, arguments, words, exit_code);
  }
  void refused_on(int ranks, const std::string& arguments, const std::vector<std::string>& words,
                  int exit_code = 2) const {
    const CommandResult result = verne(root(), ranks, arguments);
    SCOPED_TRACE(arguments + " on " + std::to_string(ranks) + " ranks\n" + result.output + result.errors);
    EXPECT_EQ(result.exit_code, exit_code);
    EXPECT_EQ(error_lines(result.errors), 1);
    for (const std::string& word : words) EXPECT_THAT(result.errors, HasSubstr(word));
  }
  /// The folder hf is refused by import, train and score, and leaves nothing.
  void model_refused(const std::vector<std::string>& words) const {
    refused("import --import.input=hf --import.output=model.h5", words);
    EXPECT_FALSE(fs::exists(root() / "model.h5"));
    refused_on(2, "train deck.ini --model.init=pretrained --model.path=hf", words);
    EXPECT_FALSE(fs::exists(root() / "run" / "checkpoints"));
    refused_on(1,
               "score --model.path=hf --run.device=cpu --score.input=train.jsonl --score.output=scores.jsonl",
               words);
    EXPECT_FALSE(fs::exists(root() / "scores.jsonl"));
  }
  void change_header(const std::function<void(RawSafetensors&)>& change) const {
    RawSafetensors content = read_safetensors(weights());
    change(content);
    write_safetensors(weights(), content);
  }
  void change_config(const std::function<void(json&)>& change) const {
    json config = json::parse(read_text(root() / "hf" / "config.json"));
    change(config);
    write_text(root() / "hf" / "config.json", config.dump());
  }

 private:
  TemporaryDirectory directory_;
};

TEST_F(BadInput, TruncatedWeights) {
  fs::resize_file(weights(), fs::file_size(weights()) - 100);
  model_refused({"model.safetensors"});
  fs::resize_file(weights(), 5);
  refused("import --import.input=hf --import.output=model.h5", {"model.safetensors"});
}

TEST_F(BadInput, HeaderLongerThanTheFile) {
  std::string bytes = read_text(weights());
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(i < 7 ? 0xff : 0x7f);
  write_text(weights(), bytes);
  model_refused({"model.safetensors"});
}

TEST_F(BadInput, OverlappingTensors) {
  change_header([](RawSafetensors& content) {
    auto& offsets = content.header["model.layers.0.input_layernorm.weight"]["data_offsets"];
    for (auto& offset : offsets) offset = offset.get<std::int64_t>() - 4;
  });
  model_refused({"model.safetensors", "model.layers.0.input_layernorm.weight", "overlap"});
}

TEST_F(BadInput, OffsetsBeyondTheEnd) {
  change_header([](RawSafetensors& content) {
    content.header["model.norm.weight"]["data_offsets"] = {INT64_MAX - 128, INT64_MAX};
  });
  model_refused({"model.safetensors", "model.norm.weight"});
}

TEST_F(BadInput, UnknownDtypeAndShape) {
  change_header([](RawSafetensors& content) { content.header["model.norm.weight"]["dtype"] = "F33"; });
  model_refused({"model.safetensors", "model.norm.weight", "F33"});
  change_header([](RawSafetensors& content) {
    content.header["model.norm.weight"]["dtype"] = "F32";
    content.header["model.norm.weight"]["shape"] = {16, 2};
  });
  model_refused({"model.norm.weight"});
}

TEST_F(BadInput, MissingAndLeftOverTensors) {
  change_header([](RawSafetensors& content) {
    content.header["a.tensor.too.many"] = content.header["model.norm.weight"];
    content.header.erase("model.norm.weight");
  });
  model_refused({"model.norm.weight", "a.tensor.too.many"});
}

TEST_F(BadInput, IndexThatPointsOutside) {
  fs::rename(weights(), root() / "outside.safetensors");
  json index = {{"metadata", {{"total_size", 1}}}, {"weight_map", json::object()}};
  const RawSafetensors outside = read_safetensors(root() / "outside.safetensors");
  for (const auto& [name, entry] : outside.header.items())
    if (name != "__metadata__") index["weight_map"][name] = "../outside.safetensors";
  write_text(root() / "hf" / "model.safetensors.index.json", index.dump());
  model_refused({"model.safetensors.index.json", "../outside.safetensors"});
}

TEST_F(BadInput, HostileConfig) {
  const std::string config = read_text(root() / "hf" / "config.json");
  const auto refused_with = [&](const std::string& key, const json& value) {
    change_config([&](json& c) { c[key] = value; });
    refused_on(1, "import --import.input=hf --import.output=model.h5", {"config.json", key});
    write_text(root() / "hf" / "config.json", config);
  };
  refused_with("hidden_size", 0);
  refused_with("num_hidden_layers", -1);
  refused_with("vocab_size", "432");
  refused_with("num_attention_heads", 4.5);
  refused_with("intermediate_size", 9223372036854775807LL);
  refused_with("hidden_act", "gelu");
  refused_with("attention_dropout", 0.1);
  refused_with("model_type", "gpt2");
  refused_with("architectures", json::array({"LlamaForCausalLM"}));
  refused_with("rope_scaling", {{"rope_type", "nobody_knows"}, {"factor", 2.0}});
  write_text(root() / "hf" / "config.json", config.substr(0, config.size() / 2));
  model_refused({"config.json"});
  write_text(root() / "hf" / "config.json", std::string(100000, '['));
  refused_on(1, "import --import.input=hf --import.output=model.h5", {"config.json"});
}

TEST_F(BadInput, MissingModel) {
  refused("import --import.input=nowhere --import.output=model.h5", {"nowhere"});
  refused("train deck.ini --model.init=pretrained --model.path=nowhere", {"nowhere"});
  refused("train deck.ini --model.config=nowhere.json", {"nowhere.json"});
  refused("export --export.checkpoint=nowhere --export.output=out", {"nowhere"});
  EXPECT_FALSE(fs::exists(root() / "out"));
}

TEST_F(BadInput, BrokenRecords) {
  const std::string good = small_records(0, 20);
  const auto with_line_21 = [&](const std::string& line) {
    write_text(root() / "train.jsonl", good + line + "\n" + good);
  };
  const std::vector<std::string> place = {"train.jsonl", "21"};
  for (const std::string line :
       {R"({"question": "What)", R"({"question": "What", "answer": 7})", R"(["no", "record"])",
        R"({"other": "x"})", "{\"question\": \"\xff\xfe\", \"answer\": \"x\"}"}) {
    with_line_21(line);
    refused_on(2, "train deck.ini", place);
    refused_on(1, "prepare deck.ini --prepare.input=train.jsonl --prepare.output=shards", place);
    EXPECT_TRUE(!fs::exists(root() / "shards") || snapshot(root() / "shards").empty());
    EXPECT_FALSE(fs::exists(root() / "run" / "data" / "train.h5"));
  }
  // Token ids: negative, fractional, not in the vocabulary; a mask of another length.
  for (const std::string line : {R"({"tokens": [1, -2]})", R"({"tokens": [1, 2.5]})",
                                 R"({"tokens": [1, 432]})", R"({"tokens": [1, 2], "loss_mask": [1]})"}) {
    write_text(root() / "train.jsonl", "{\"tokens\": [1, 2, 3]}\n\n" + line + "\n");
    refused_on(1, "train deck.ini", {"train.jsonl", "3"});
  }
}

TEST_F(BadInput, DeckKeys) {
  write_text(root() / "bad.ini", read_text(root() / "deck.ini") + "[parallel]\ntensr = 2\n");
  refused("train bad.ini", {"bad.ini", "tensr", "parallel.tensor"});
  refused("train deck.ini --train.per_device_train_batch_size=4",
          {"per_device_train_batch_size", "train.micro_batch"});
  refused("train deck.ini --tensor_model_parallel_size=2", {"tensor_model_parallel_size", "parallel.tensor"});
  refused("train deck.ini --optimizer.lr=fast", {"optimizer.lr", "fast"});
  refused("train deck.ini --train.max_steps=-1", {"train.max_steps", "-1"});
  refused("train nowhere.ini", {"nowhere.ini"});
  EXPECT_FALSE(fs::exists(root() / "run"));
}

TEST_F(BadInput, LayoutsThatDoNotDivide) {
  write_text(root() / "config.json", [&] {
    json config = json::parse(read_text(root() / "config.json"));
    config["num_attention_heads"] = 6;
    config["num_key_value_heads"] = 3;
    return config.dump();
  }());
  refused_on(2, "train deck.ini --parallel.tensor=2", {"tensor", "2", "1", "3"});
  refused_on(1, "train deck.ini --parallel.tensor=2", {"parallel.tensor", "2"});
  refused_on(2, "train deck.ini --train.global_batch=5", {"train.global_batch", "5", "4 and 6"});
  refused_on(3, "train deck.ini --parallel.tensor=2", {"3", "2"});
  EXPECT_FALSE(fs::exists(root() / "run" / "checkpoints"));
}

TEST_F(BadInput, ShardsOfAnotherTokenizer) {
  copy_folder(golden_dir() / "tokenizers" / "llama3", root() / "llama3");
  const CommandResult made = verne(
      root(), 1,
      "prepare deck.ini --prepare.tokenizer=llama3 --prepare.template=simple --prepare.input=train.jsonl "
      "--prepare.output=shards --prepare.split=1,0,0");
  ASSERT_EQ(made.exit_code, 0) << made.errors;
  refused(
      "train deck.ini --model.init=pretrained --model.path=hf --data.train=shards/train.h5 "
      "--data.validation=shards/train.h5",
      {"shards/train.h5", "tokenizer"});
}

TEST_F(BadInput, TruncatedShardAndCheckpoint) {
  ASSERT_EQ(
      verne(root(), 1,
            "prepare deck.ini --prepare.input=train.jsonl --prepare.output=shards --prepare.split=1,0,0")
          .exit_code,
      0);
  const fs::path shard = root() / "shards" / "train.h5";
  fs::resize_file(shard, fs::file_size(shard) / 2);
  refused("train deck.ini --data.train=shards/train.h5 --data.validation=shards/train.h5",
          {"shards/train.h5"});
  ASSERT_EQ(verne(root(), 1, "import --import.input=hf --import.output=model.h5").exit_code, 0);
  fs::resize_file(root() / "model.h5", fs::file_size(root() / "model.h5") / 2);
  refused("export --export.checkpoint=model.h5 --export.output=out", {"model.h5"});
  EXPECT_FALSE(fs::exists(root() / "out"));
}

TEST_F(BadInput, OverlongDocuments) {
  refused("train deck.ini --data.seq_length=16", {"seq_length", "truncate", "60"});
}

TEST_F(BadInput, RunDirectoryThatIsAFile) {
  write_text(root() / "run", "a file");
  for (const int ranks : {1, 2}) {
    const CommandResult result = verne(root(), ranks, "train deck.ini");
    EXPECT_NE(result.exit_code, 0);
    EXPECT_EQ(error_lines(result.errors), 1) << result.errors;
    EXPECT_THAT(result.errors, HasSubstr("run.dir"));
  }
  EXPECT_EQ(read_text(root() / "run"), "a file");
}

TEST_F(BadInput, UnreadableOnOneRankAlone) {
  // Each rank in a folder of its own; what is missing is missing on rank 1.
  for (const char* missing : {"train.jsonl", "config.json", "tokenizer"}) {
    for (const std::string rank : {"0", "1"}) {
      fs::remove_all(root() / ("rank" + rank));
      fs::create_directories(root() / ("rank" + rank));
      for (const char* name : {"train.jsonl", "validation.jsonl", "config.json", "deck.ini", "tokenizer"})
        if (rank == "0" || name != std::string(missing))
          fs::copy(root() / name, root() / ("rank" + rank) / name, fs::copy_options::recursive);
    }
    const CommandResult result =
        run_shell(root(), mpirun() + " -n 2 sh -c 'cd rank$OMPI_COMM_WORLD_RANK && exec " + verne_program() +
                              " train deck.ini --run.dir=" + (root() / "run").string() + "'");
    EXPECT_EQ(result.exit_code, 2) << missing << result.errors;
    EXPECT_EQ(error_lines(result.errors), 1) << result.errors;
    EXPECT_THAT(result.errors, HasSubstr("rank 1")) << missing;
    EXPECT_THAT(result.errors, HasSubstr(missing));
  }
}

TEST_F(BadInput, FullDevice) {
  refused(
      "score --model.path=hf --run.device=cpu --score.input=train.jsonl --score.output=/dev/full "
      "--prepare.template=qwen3 --prepare.input_key=question --prepare.output_key=answer",
      {"/dev/full", "No space left"}, 1);
}

TEST_F(BadInput, FullDisk) {
  const fs::path small = root() / "small";
  fs::create_directory(small);
  if (::getuid() != 0 || ::mount("tmpfs", small.c_str(), "tmpfs", 0, "size=96k") != 0)
    GTEST_SKIP() << "a small file system needs root";
  refused("import --import.input=hf --import.output=small/model.h5", {"small/", "No space left"}, 1);
  EXPECT_TRUE(snapshot(small).empty());
  ASSERT_EQ(verne(root(), 1, "import --import.input=hf --import.output=model.h5").exit_code, 0);
  refused("export --export.checkpoint=model.h5 --export.output=small/out", {"small/", "No space left"}, 1);
  EXPECT_FALSE(fs::exists(small / "out"));
  for (const int ranks : {1, 2}) {
    fs::remove_all(small / "run");
    refused_on(ranks, "train deck.ini --run.dir=small/run", {"small/run", "No space left"}, 1);
    EXPECT_FALSE(fs::exists(small / "run" / "checkpoints" / "last"));
    EXPECT_FALSE(fs::exists(small / "run" / "checkpoints" / "step_00000003.h5"));
  }
  ::umount(small.c_str());
}

}  // namespace
}  // namespace verne::testing
