#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <mpi.h>

#include <optional>
#include <sstream>

#include "layouts.hpp"
#include "verne/base/error.hpp"
#include "verne/checkpoint/convert.hpp"
#include "verne/checkpoint/inspect.hpp"
#include "verne/checkpoint/reader.hpp"
#include "verne/io/hf_folder.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr const char* kConfig =
    "{\n  \"model_type\": \"llama\",\n  \"torch_dtype\": \"float32\",\n  \"vocab_size\": 4,\n  \"unknown\": "
    "1.50\n}\n";

/// A Hugging Face folder of float32 tensors, element i of tensor t being value_at(t, i).
class ConvertMpi : public ::testing::Test {
 protected:
  ConvertMpi() : group(MPI_COMM_WORLD) {
    if (group.rank() == 0) directory_.emplace();
    folder = group.broadcast_text(directory_ ? directory_->path().string() : "", 0);
    expected = {{"model.embed_tokens.weight", Shape{4, 6}},
                {"model.big.weight", Shape{2'100, 2'060}},
                {"model.norm.weight", Shape{6}}};
  }
  ~ConvertMpi() override { group.barrier(); }

  void write_source(const std::vector<std::pair<std::string, Shape>>& extra = {}) {
    std::vector<TensorInfo> tensors;
    for (const auto& tensor : expected) tensors.push_back({tensor.name, DType::f32, tensor.shape});
    for (const auto& [name, shape] : extra) tensors.push_back({name, DType::f32, shape});
    HfFolderWriter writer(group, folder / "source", tensors);
    if (group.rank() == 0) {
      for (std::size_t t = 0; t < tensors.size(); ++t) {
        std::vector<float> values(static_cast<std::size_t>(tensors[t].shape.count()));
        // A tied head holds what the embedding does.
        const int seed = tensors[t].name == "lm_head.weight" ? 0 : static_cast<int>(t);
        for (std::size_t i = 0; i < values.size(); ++i)
          values[i] = testing::value_at(seed, static_cast<std::int64_t>(i));
        writer.write(tensors[t], 0, std::as_bytes(std::span(values)));
      }
    }
    writer.add_file("config.json", kConfig);
    writer.add_file("tokenizer.json", "{\"version\": \"1.0\"}");
    writer.add_file("tokenizer_config.json", "{\"tokenizer_class\": \"X\", \"chat_template\": \"old\"}");
    writer.add_file("generation_config.json", "{\"eos_token_id\": 2, \"top_k\": 20}");
    writer.publish();
    group.barrier();
  }

  std::string refusal(const ImportOptions& options) {
    try {
      import_model(options, group);
    } catch (const UserError& error) {
      return error.what();
    }
    return "accepted";
  }

  ImportOptions options() const {
    return {folder / "source", folder / "model.h5", expected, {}, {}, "source"};
  }

  HostGroup group;
  fs::path folder;
  std::vector<ExpectedTensor> expected;

 private:
  std::optional<testing::TemporaryDirectory> directory_;
};

TEST_F(ConvertMpi, FolderToCheckpointAndBackIsTheSame) {
  write_source();
  import_model(options(), group);
  const CheckpointReader reader(folder / "model.h5");
  verify_checkpoint(reader);
  EXPECT_EQ(reader.side_files().config, kConfig);
  EXPECT_EQ(reader.state().step(), 0);
  EXPECT_EQ(reader.tensors(CheckpointGroup::model).tensors()[0].dtype, DType::f32);

  export_model({.checkpoint = folder / "model.h5",
                .output = folder / "out",
                .chat_template = {},
                .end_token_id = {},
                .extra_files = {{"used_inputs.ini", "x\n"}}},
               group);
  for (const char* name : {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json",
                           "generation_config.json"}) {
    EXPECT_TRUE(testing::read_text(folder / "source" / name) == testing::read_text(folder / "out" / name))
        << name;
  }
  EXPECT_EQ(testing::read_text(folder / "out" / "used_inputs.ini"), "x\n");
}

TEST_F(ConvertMpi, AnotherDtypeConvertsWeightsAndConfig) {
  write_source();
  ImportOptions wanted = options();
  wanted.dtype = DType::bf16;
  import_model(wanted, group);
  const CheckpointReader reader(folder / "model.h5");
  const TensorInfo* norm = reader.tensors(CheckpointGroup::model).find("model.norm.weight");
  ASSERT_NE(norm, nullptr);
  ASSERT_EQ(norm->dtype, DType::bf16);
  std::vector<bf16> values(6);
  reader.tensors(CheckpointGroup::model).read(*norm, 0, std::as_writable_bytes(std::span(values)));
  for (std::int64_t i = 0; i < 6; ++i)
    EXPECT_EQ(static_cast<float>(values[static_cast<std::size_t>(i)]), testing::value_at(2, i));
  std::string config = kConfig;
  config.replace(config.find("float32"), 7, "bfloat16");
  EXPECT_EQ(reader.side_files().config, config);
}

TEST_F(ConvertMpi, TrainedTemplateAndEndTokenTravel) {
  write_source();
  import_model(options(), group);
  export_model({.checkpoint = folder / "model.h5",
                .output = folder / "out",
                .chat_template = "{{ 'new' }}",
                .end_token_id = 7,
                .shard_bytes = 1'000'000,
                .extra_files = {}},
               group);
  EXPECT_EQ(testing::read_text(folder / "out" / "tokenizer_config.json"),
            "{\"tokenizer_class\": \"X\", \"chat_template\": \"{{ 'new' }}\"}");
  const auto generation =
      nlohmann::json::parse(testing::read_text(folder / "out" / "generation_config.json"));
  EXPECT_EQ(generation, nlohmann::json::parse("{\"eos_token_id\": [7, 2], \"top_k\": 20}"));
  EXPECT_TRUE(fs::exists(folder / "out" / "model.safetensors.index.json"));
  std::ostringstream text;
  EXPECT_EQ(inspect_compare(folder / "source", folder / "out", text), Comparison::equal) << text.str();
}

TEST_F(ConvertMpi, EveryTensorIsConsumedAndEveryParameterFilled) {
  write_source({{"model.layers.0.self_attn.rotary_emb.inv_freq", Shape{3}}, {"lm_head.weight", Shape{4, 6}}});
  EXPECT_THAT(refusal(options()), HasSubstr("not part of the model: lm_head.weight"));
  EXPECT_FALSE(fs::exists(folder / "model.h5"));
  ImportOptions tied = options();
  tied.duplicates = {{"lm_head.weight", "model.embed_tokens.weight"}};
  EXPECT_EQ(refusal(tied), "accepted");
  EXPECT_EQ(CheckpointReader(folder / "model.h5").tensors(CheckpointGroup::model).tensors().size(), 3u);
  group.barrier();
  tied.duplicates = {{"lm_head.weight", "model.big.weight"}};
  EXPECT_THAT(refusal(tied), HasSubstr("lm_head.weight (fp32 [4, 6]) must equal model.big.weight"));
  ImportOptions other = options();
  other.duplicates = {{"lm_head.weight", "model.embed_tokens.weight"}};
  other.expected.push_back({"model.missing.weight", Shape{2}});
  other.expected[2].shape = Shape{7};
  const std::string text = refusal(other);
  EXPECT_THAT(text, HasSubstr("missing: model.missing.weight"));
  EXPECT_THAT(text, HasSubstr("model.norm.weight is [6], expected [7]"));
}

}  // namespace
}  // namespace verne
