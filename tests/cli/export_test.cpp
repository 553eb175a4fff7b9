// Models in and out: import, export, score, inspect.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <sstream>

#include "cli.hpp"

namespace verne::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

class Models : public ::testing::Test {
 protected:
  void SetUp() override {
    write_small_case(root());
    copy_folder(small_model(), root() / "hf");
    write_text(root() / "score.jsonl", small_records(200, 9));
  }
  const fs::path& root() const { return directory_.path(); }
  void succeeds(int ranks, const std::string& arguments) const {
    const CommandResult result = verne(root(), ranks, arguments);
    ASSERT_EQ(result.exit_code, 0) << arguments << "\n" << result.output << result.errors;
  }
  std::vector<json> score(int ranks, const std::string& model, const std::string& settings = "") const {
    succeeds(ranks,
             "score --model.path=" + model +
                 " --model.dtype=fp32 --run.device=cpu --score.input=score.jsonl --score.output=scores.jsonl "
                 "--prepare.template=qwen3 --prepare.input_key=question --prepare.output_key=answer " +
                 settings);
    std::vector<json> lines;
    std::istringstream text(read_text(root() / "scores.jsonl"));
    for (std::string line; std::getline(text, line);) lines.push_back(json::parse(line));
    return lines;
  }

 private:
  TemporaryDirectory directory_;
};

TEST_F(Models, ExportedFolderHoldsWhatAServerNeeds) {
  const json source = json::parse(read_text(root() / "config.json"));
  json config = json::parse(read_text(root() / "hf" / "config.json"));
  EXPECT_EQ(config, source);
  EXPECT_THAT(read_text(root() / "hf" / "config.json"), HasSubstr("10000.0"));  // a number keeps its spelling
  const json generation = json::parse(read_text(root() / "hf" / "generation_config.json"));
  EXPECT_EQ(generation.at("eos_token_id"), 422);
  const json tokenizer = json::parse(read_text(root() / "hf" / "tokenizer_config.json"));
  EXPECT_THAT(tokenizer.at("chat_template").get<std::string>(), HasSubstr("<|im_start|>"));
  EXPECT_EQ(tokenizer.at("eos_token"), "<|im_end|>");
  EXPECT_EQ(read_text(root() / "hf" / "tokenizer.json"), read_text(root() / "tokenizer" / "tokenizer.json"));

  const RawSafetensors weights = read_safetensors(root() / "hf" / "model.safetensors");
  std::set<std::string> names;
  for (const auto& [name, entry] : weights.header.items()) {
    if (name == "__metadata__") continue;
    names.insert(name);
    EXPECT_EQ(entry.at("dtype"), "F32") << name;
  }
  std::set<std::string> expected = {"model.embed_tokens.weight", "model.norm.weight"};
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    for (const char* part : {"input_layernorm", "post_attention_layernorm", "self_attn.q_proj",
                             "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "self_attn.q_norm",
                             "self_attn.k_norm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"})
      expected.insert(layer + part + ".weight");
  }
  EXPECT_EQ(names, expected);
  EXPECT_EQ(weights.header.at("model.embed_tokens.weight").at("shape"), json({432, 32}));
  EXPECT_EQ(weights.header.at("__metadata__").at("format"), "pt");
}

TEST_F(Models, ImportThenExportGivesTheSameBytes) {
  const RawSafetensors source = read_safetensors(root() / "hf" / "model.safetensors");
  for (const int ranks : {1, 2}) {
    const std::string n = std::to_string(ranks);
    succeeds(ranks, "import --import.input=hf --import.output=model" + n + ".h5");
    succeeds(ranks, "export --export.checkpoint=model" + n + ".h5 --export.output=out" + n);
    const RawSafetensors target = read_safetensors(root() / ("out" + n) / "model.safetensors");
    for (const auto& [name, entry] : source.header.items()) {
      if (name == "__metadata__") continue;
      ASSERT_TRUE(target.header.contains(name)) << name;
      EXPECT_EQ(target.header[name].at("dtype"), entry.at("dtype"));
      EXPECT_EQ(target.header[name].at("shape"), entry.at("shape"));
      const auto bytes = [](const RawSafetensors& file, const json& of) {
        const std::size_t begin = of.at("data_offsets")[0], end = of.at("data_offsets")[1];
        return file.data.substr(begin, end - begin);
      };
      EXPECT_EQ(bytes(target, target.header[name]), bytes(source, entry)) << name;
    }
    EXPECT_EQ(json::parse(read_text(root() / ("out" + n) / "config.json")),
              json::parse(read_text(root() / "hf" / "config.json")));
    EXPECT_TRUE(fs::exists(root() / ("out" + n) / "used_inputs.ini"));
    EXPECT_EQ(read_text(root() / ("out" + n) / "tokenizer_config.json"),
              read_text(root() / "hf" / "tokenizer_config.json"));
  }
  succeeds(1, "inspect --inspect.input=model1.h5 --inspect.verify");
  const CommandResult same =
      verne(root(), 1, "inspect --inspect.input=model1.h5 --inspect.compare=model2.h5");
  EXPECT_EQ(same.exit_code, 0) << same.errors;
}

TEST_F(Models, ScoresAreTheSameForRunCheckpointAndFolder) {
  succeeds(1, "train deck.ini --train.export=hf");
  const std::vector<json> folder = score(1, "run/hf");
  ASSERT_EQ(folder.size(), 9u);
  for (std::size_t i = 0; i < folder.size(); ++i) {
    EXPECT_EQ(folder[i].at("index"), i);
    EXPECT_TRUE(folder[i].at("logprobs")[0].is_null());
    ASSERT_EQ(folder[i].at("logprobs").size(), folder[i].at("tokens").size());
    double sum = 0;
    const auto counted = folder[i].at("counted_tokens").get<std::size_t>();
    const auto& values = folder[i].at("logprobs");
    // The answer stands at the end; a newline follows its end token.
    std::size_t end = values.size();
    while (folder[i].at("tokens")[end - 1] != 422) --end;
    for (std::size_t t = end - counted; t < end; ++t) sum += values[t].get<double>();
    EXPECT_NEAR(folder[i].at("sum_logprob").get<double>(), sum, 1e-4) << i;
  }
  EXPECT_EQ(score(1, "run@best", "--prepare.tokenizer=tokenizer"), folder);
  EXPECT_EQ(score(1, "run@8", "--prepare.tokenizer=tokenizer"), folder);
  for (const char* layout : {"", "--parallel.tensor=2"}) {
    const std::vector<json> other = score(2, "run/hf", layout);
    ASSERT_EQ(other.size(), folder.size());
    for (std::size_t i = 0; i < folder.size(); ++i) {
      const double value = folder[i].at("sum_logprob");
      EXPECT_NEAR(other[i].at("sum_logprob").get<double>(), value, 1e-5 * std::fabs(value));
      EXPECT_EQ(other[i].at("tokens"), folder[i].at("tokens"));
    }
  }
}

TEST_F(Models, TrainsFromAFolderAndFromItsCheckpointAlike) {
  const std::string settings = "train deck.ini --model.init=pretrained --train.max_steps=3 ";
  succeeds(1, settings + "--model.path=hf --run.dir=from_folder");
  succeeds(1, "import --import.input=hf --import.output=model.h5");
  succeeds(1, settings + "--model.path=model.h5 --run.dir=from_checkpoint");
  EXPECT_EQ(read_metrics(root() / "from_folder"), read_metrics(root() / "from_checkpoint"));
}

TEST_F(Models, TrainsOnShardsThatPrepareMade) {
  succeeds(1, "train deck.ini --run.dir=from_jsonl");
  succeeds(2, "prepare deck.ini --prepare.input=train.jsonl --prepare.output=shards --prepare.split=1,0,0");
  succeeds(1,
           "prepare deck.ini --prepare.input=validation.jsonl --prepare.output=others --prepare.split=0,1,0");
  succeeds(1,
           "train deck.ini --run.dir=from_shards --data.train=shards/train.h5 "
           "--data.validation=others/validation.h5");
  EXPECT_EQ(read_metrics(root() / "from_shards"), read_metrics(root() / "from_jsonl"));
}

TEST_F(Models, AddedTokensGrowTheEmbedding) {
  succeeds(2,
           "train deck.ini --parallel.tensor=2 --model.init=pretrained --model.path=hf --train.max_steps=1 "
           "--train.export=hf "
           "'--prepare.special_tokens=<buy>,<sell>,<a>,<b>,<c>,<d>,<e>'");
  // 427 tokens of the tokenizer and seven: two more than the 432 rows.
  EXPECT_EQ(json::parse(read_text(root() / "run" / "hf" / "config.json")).at("vocab_size"), 434);
  const RawSafetensors weights = read_safetensors(root() / "run" / "hf" / "model.safetensors");
  EXPECT_EQ(weights.header.at("model.embed_tokens.weight").at("shape"), json({434, 32}));
  EXPECT_THAT(read_text(root() / "run" / "hf" / "tokenizer.json"), HasSubstr("<sell>"));
  EXPECT_EQ(score(1, "run/hf").size(), 9u);
}

/// A vocabulary that grows does not keep damage from being seen, in any tensor.
TEST_F(Models, ADamagedCheckpointIsRefusedAlsoWhereTheVocabularyGrows) {
  succeeds(1, "import --import.input=hf --import.output=model.h5");
  const RawSafetensors weights = read_safetensors(root() / "hf" / "model.safetensors");
  const std::string whole = read_text(root() / "model.h5");
  for (const char* name : {"model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"}) {
    const auto& place = weights.header.at(name).at("data_offsets");
    const std::size_t begin = place[0], end = place[1];
    std::string damaged = whole;
    const std::size_t at = damaged.find(weights.data.substr(begin, end - begin));
    ASSERT_NE(at, std::string::npos) << name;
    damaged[at + 9] ^= 1;
    write_text(root() / "model.h5", damaged);
    const CommandResult result =
        verne(root(), 1,
              "train deck.ini --model.init=pretrained --model.path=model.h5 --train.max_steps=1 "
              "'--prepare.special_tokens=<buy>,<sell>,<a>,<b>,<c>,<d>,<e>'");
    EXPECT_EQ(result.exit_code, 2) << name << result.output;
    EXPECT_THAT(result.errors, AllOf(HasSubstr(name), HasSubstr("is damaged")));
  }
}

TEST_F(Models, ExportReplacesAnOlderFolderWhole) {
  succeeds(1, "import --import.input=hf --import.output=model.h5");
  succeeds(1, "export --export.checkpoint=model.h5 --export.output=out");
  const auto first = snapshot(root() / "out");
  succeeds(1, "export --export.checkpoint=model.h5 --export.output=out");
  EXPECT_EQ(snapshot(root() / "out"), first);
}

}  // namespace
}  // namespace verne::testing
