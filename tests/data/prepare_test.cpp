#include "verne/data/prepare.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "test_data.hpp"
#include "test_tokenizer.hpp"
#include "testing.hpp"
#include "verne/base/error.hpp"
#include "verne/data/certificate.hpp"

namespace verne {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Prepare : public ::testing::Test {
 protected:
  Prepare() { testing::write_byte_tokenizer(path("tokenizer")); }

  std::filesystem::path path(const std::string& name) const { return folder_.path() / name; }
  /// One file of these lines.
  PrepareSettings settings(const std::string& text, const std::string& chat_template = "simple") const {
    testing::write_text(path("in.jsonl"), text);
    PrepareSettings result;
    result.inputs = {{path("in.jsonl"), std::nullopt}};
    result.output = path("out");
    result.tokenizer = path("tokenizer");
    result.template_name = chat_template;
    result.split = {1, 0, 0};
    result.seed = 7;
    return result;
  }
  PreparedData run(const PrepareSettings& settings, Reuse reuse = Reuse::no) {
    std::ostringstream out;
    const PreparedData data = prepare(settings, HostGroup(), out, reuse);
    printed_ = out.str();
    return data;
  }
  std::string error_of(const PrepareSettings& settings) {
    try {
      run(settings);
    } catch (const UserError& error) {
      return error.what();
    }
    return "no error";
  }
  std::string text_of(const Document& document) const {
    return marked_text(document, Tokenizer::load(path("tokenizer")), Marking::brackets);
  }
  std::vector<std::string> texts(const std::string& shard) const {
    std::vector<std::string> result;
    for (const Document& document : testing::read_shard(path("out") / shard))
      result.push_back(text_of(document));
    return result;
  }
  static std::string numbered(int count) {
    std::string text;
    for (int i = 0; i < count; ++i) {
      text += fmt::format("{{\"input\":\"q{}\",\"output\":\"a{}\",\"t\":{}}}\n", i, i, i * 37 % count);
    }
    return text;
  }

  testing::TemporaryDirectory folder_;
  std::string printed_;
};

TEST_F(Prepare, ShardsNameTheTemplateThatTheirRecordsWentThrough) {
  const auto template_of = [&](const std::string& text) {
    run(settings(text, "chatml"));
    for (const char* shard : {"train.h5", "validation.h5"})
      EXPECT_EQ(ShardReader(path("out") / shard).info().chat_template,
                ShardReader(path("out") / "test.h5").info().chat_template);
    return ShardReader(path("out") / "train.h5").info().chat_template;
  };
  const std::string text = "{\"text\":\"a\"}\n", tokens = "{\"tokens\":[1,2]}\n",
                    pair = "{\"input\":\"a\",\"output\":\"b\"}\n";
  EXPECT_EQ(template_of(text + tokens), "none");
  EXPECT_EQ(template_of(tokens), "");
  EXPECT_EQ(template_of(text + pair), "chatml");
  const Json forms = read_certificate(path("out"))->at("records").at("forms");
  EXPECT_EQ(forms, (Json{{"templated", 1}, {"text", 1}, {"tokenized", 0}}));
}

TEST_F(Prepare, PromptIsMaskedAndTheAnswerTrained) {
  const PreparedData data =
      run(settings("\xEF\xBB\xBF{\"input\":\"hi\",\"output\":\"yo\",\"id\":3}\r\n\r\n{\"text\":\"all\"}\n"));
  EXPECT_THAT(texts("train.h5"), ElementsAre("hi\n[[yo<|endoftext|>]]", "a[[ll<|endoftext|>]]"));
  EXPECT_EQ(data[Part::train].documents, 2);
  EXPECT_EQ(data[Part::train].tokens, 10);
  EXPECT_EQ(data[Part::train].trained_tokens, 6);
  const ShardReader shard(path("out") / "train.h5", Tokenizer::load(path("tokenizer")).hash());
  EXPECT_THAT(shard.metadata(0, 2), ElementsAre("{\"id\":3}", "{}"));
  EXPECT_EQ(shard.info().chat_template, "simple");
  EXPECT_EQ(Tokenizer::from_json(shard.tokenizer_files().at("tokenizer.json"),
                                 shard.tokenizer_files().at("tokenizer_config.json"), "shard")
                .hash(),
            shard.info().tokenizer_hash);
  EXPECT_EQ(ShardReader(path("out") / "validation.h5").documents(), 0);
  EXPECT_EQ(ShardReader(path("out") / "test.h5").documents(), 0);
}

TEST_F(Prepare, CertificateCounts) {
  run(
      settings("{\"input\":\"\",\"output\":\"abc<|endoftext|>\"}\n{\"tokens\":[]}\n{\"tokens\":[1,2,3],"
               "\"loss_mask\":[0,0,0]}\n"
               "{\"tokens\":[4,5]}\n"));
  const Json certificate = *read_certificate(path("out"));
  EXPECT_EQ(
      certificate["records"].dump(),
      R"({"read":4,"kept":3,"dropped":{"without_tokens":1},"forms":{"templated":1,"text":0,"tokenized":2}})");
  EXPECT_EQ(certificate["control_tokens_spelled"].dump(), R"({"occurrences":1,"records":1})");
  // "\n" and abc<|endoftext|> as bytes, and the end token; then three tokens, then two.
  const Json& train = certificate["parts"]["train"];
  EXPECT_EQ(train["tokens"], 1 + 3 + 13 + 1 + 3 + 2);
  EXPECT_EQ(train["trained_tokens"], 3 + 13 + 1 + 1);
  EXPECT_EQ(train["documents_without_trained_token"], 1);
  EXPECT_EQ(certificate["lengths"]["shortest"], 2);
  EXPECT_EQ(certificate["lengths"]["longest"], 18);
  EXPECT_EQ(certificate["lengths"]["histogram"].dump(),
            R"([{"from":2,"to":3,"documents":2},{"from":16,"to":31,"documents":1}])");
  EXPECT_EQ(certificate["inputs"][0]["sha256"].get<std::string>().size(), 64u);
  EXPECT_THAT(printed_, HasSubstr("1 records without a token were dropped"));
}

TEST_F(Prepare, SplitBySeedKeepsEveryRecordOnceInInputOrder) {
  PrepareSettings wanted = settings(numbered(100));
  wanted.split = {0.8, 0.1, 0.1};
  const PreparedData data = run(wanted);
  EXPECT_EQ(data[Part::train].records, 80);
  EXPECT_EQ(data[Part::validation].records, 10);
  EXPECT_EQ(data[Part::test].records, 10);
  std::vector<int> seen(100);
  for (const char* shard : {"train.h5", "validation.h5", "test.h5"}) {
    int last = -1;
    for (const std::string& text : texts(shard)) {
      const int number = std::stoi(text.substr(1));
      EXPECT_GT(number, last);
      last = number;
      ++seen[static_cast<std::size_t>(number)];
    }
  }
  EXPECT_EQ(seen, std::vector<int>(100, 1));
}

TEST_F(Prepare, SplitByTime) {
  PrepareSettings wanted = settings(numbered(50));
  wanted.split = {0.6, 0.2, 0.2};
  wanted.split_key = "t";
  run(wanted);
  const auto times = [&](const char* shard) {
    const ShardReader reader(path("out") / shard);
    std::vector<int> result;
    for (const std::string& metadata : reader.metadata(0, reader.documents())) {
      result.push_back(Json::parse(metadata)["t"].get<int>());
    }
    return result;
  };
  EXPECT_THAT(times("train.h5"), ::testing::Each(::testing::Lt(30)));
  EXPECT_THAT(times("validation.h5"),
              ::testing::Each(::testing::AllOf(::testing::Ge(30), ::testing::Lt(40))));
  EXPECT_THAT(times("test.h5"), ::testing::Each(::testing::Ge(40)));
  EXPECT_EQ(times("test.h5").size(), 10u);
}

TEST_F(Prepare, TimesOfTwoKindsAreRefused) {
  PrepareSettings wanted = settings("{\"text\":\"a\",\"t\":1}\n{\"text\":\"a\",\"t\":\"2024-01-01\"}\n");
  wanted.split_key = "t";
  EXPECT_THAT(error_of(wanted), HasSubstr("1 records have a number and 1 a date"));
}

TEST_F(Prepare, FoldersNameTheirParts) {
  PrepareSettings wanted = settings("");
  std::filesystem::create_directories(path("set"));
  testing::write_text(path("set") / "training.jsonl",
                      "{\"text\":\"tr\"}\n{\"text\":\"ain\"}\n{\"text\":\"left out\"}");
  testing::write_text(path("set") / "validation.jsonl", "{\"text\":\"val\"}\n");
  wanted.inputs = {{path("set"), std::nullopt}};
  wanted.limit = 2;
  wanted.split = {0, 0, 1};
  run(wanted);
  EXPECT_THAT(texts("train.h5"), ElementsAre("t[[r<|endoftext|>]]", "a[[in<|endoftext|>]]"));
  EXPECT_THAT(texts("validation.h5"), ElementsAre("v[[al<|endoftext|>]]"));
  EXPECT_THAT(texts("test.h5"), ElementsAre());
  wanted.inputs = {{folder_.path(), std::nullopt}};
  EXPECT_THAT(error_of(wanted), HasSubstr("a folder without training.jsonl"));
}

TEST_F(Prepare, ChatsAndSpecialTokens) {
  PrepareSettings wanted = settings(
      R"({"messages":[{"role":"user","content":"u"},{"role":"assistant","content":"a<buy>"},{"role":"user","content":"v"},{"role":"assistant","content":"b"}]})",
      "chatml");
  wanted.special_tokens = {"<buy>"};
  wanted.show = 1;
  run(wanted);
  EXPECT_THAT(printed_, HasSubstr("<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n[[a<buy><|im_end|>]]"
                                  "\n<|im_start|>user\nv<|im_end|>\n"
                                  "<|im_start|>assistant\n[[b<|im_end|>]]\n"));
  const std::vector<Document> documents = testing::read_shard(path("out") / "train.h5");
  EXPECT_THAT(documents.at(0).tokens, ::testing::Contains(259));
}

TEST_F(Prepare, ReuseWhileInputsAndSettingsAreTheSame) {
  PrepareSettings wanted = settings(numbered(10));
  EXPECT_EQ(run(wanted, Reuse::yes).made, PreparedData::Made::now);
  const PreparedData again = run(wanted, Reuse::yes);
  EXPECT_EQ(again.made, PreparedData::Made::before);
  EXPECT_EQ(again[Part::train].documents, 10);
  wanted.show = 1;
  EXPECT_EQ(run(wanted, Reuse::yes).made, PreparedData::Made::before);
  wanted.seed = 8;
  EXPECT_EQ(run(wanted, Reuse::yes).made, PreparedData::Made::now);
  testing::write_text(path("in.jsonl"), numbered(11));
  EXPECT_EQ(run(wanted, Reuse::yes)[Part::train].documents, 11);
  std::filesystem::resize_file(path("out") / "test.h5", 100);
  EXPECT_EQ(run(wanted, Reuse::yes).made, PreparedData::Made::now);
}

TEST_F(Prepare, TokenizedRecordsNeedNoTokenizer) {
  PrepareSettings wanted = settings("{\"tokens\":[5,6,7]}\n");
  wanted.tokenizer.clear();
  wanted.vocab_size = 8;
  run(wanted);
  EXPECT_THAT(testing::read_shard(path("out") / "train.h5").at(0).loss_mask, ElementsAre(0, 1, 1));
  wanted.vocab_size = 7;
  EXPECT_THAT(error_of(wanted), HasSubstr("in.jsonl:1: tokens[2] is 7, expected an integer from 0 to 6"));
  wanted.tokenizer = path("tokenizer");  // whose vocabulary is larger: the model's counts
  EXPECT_THAT(error_of(wanted), HasSubstr("tokens[2] is 7, expected an integer from 0 to 6"));
  PrepareSettings text = settings("{\"text\":\"a\"}\n");
  text.tokenizer.clear();
  EXPECT_THAT(error_of(text), HasSubstr("in.jsonl:1: a record of text, but there is no tokenizer"));
}

TEST_F(Prepare, ErrorsNameTheLineAndLeaveNothing) {
  const PrepareSettings wanted = settings("{\"text\":\"a\"}\r\n\n{\"text\":}\n");
  EXPECT_THAT(error_of(wanted), HasSubstr("in.jsonl:3: not valid JSON"));
  for (const char* name : {"train.h5", "validation.h5", "test.h5", "certificate.json"}) {
    EXPECT_FALSE(std::filesystem::exists(path("out") / name)) << name;
  }
  PrepareSettings absent = settings("");
  absent.inputs = {{path("none.jsonl"), std::nullopt}};
  EXPECT_THAT(error_of(absent), HasSubstr("none.jsonl"));
  PrepareSettings unknown = settings("{\"input\":\"a\",\"output\":\"b\"}\n", "auto");
  EXPECT_THAT(error_of(unknown), HasSubstr("in.jsonl:1: "));
}

TEST_F(Prepare, Gsm8kWithQwen3) {
  const auto shared = testing::shared_dir();
  if (!shared) GTEST_SKIP() << "the shared folder is not here";
  PrepareSettings wanted = settings("", "qwen3");
  wanted.inputs = {{*shared / "data/gsm8k_train.jsonl", std::nullopt}};
  wanted.tokenizer = *shared / "tokenizers/qwen3";
  wanted.input_key = "question";
  wanted.output_key = "answer";
  const PreparedData data = run(wanted);
  EXPECT_EQ(data[Part::train].documents, 7473);
  const Document first = testing::read_shard(path("out") / "train.h5").at(0);
  EXPECT_EQ(marked_text(first, Tokenizer::load(wanted.tokenizer), Marking::brackets),
            "<|im_start|>user\nNatalia sold clips to 48 of her friends in April, and then she sold half as "
            "many clips in May. "
            "How many clips did Natalia sell altogether in April and May?<|im_end|>\n<|im_start|>assistant\n"
            "[[<think>\n\n</think>\n\nNatalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
            "Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.\n#### 72<|im_end|>]]\n");
  std::cout << printed_;
}

}  // namespace
}  // namespace verne
