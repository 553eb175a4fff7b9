#include "verne/text/chat_template.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "testing.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

Tokenizer golden_tokenizer(const std::string& name) {
  return Tokenizer::load(testing::golden_dir() / "tokenizers" / name);
}

std::optional<std::string> optional_text(const Json& record, const char* key) {
  return record.contains(key) ? std::optional(record[key].get<std::string>()) : std::nullopt;
}

TextRecord read_record(const Json& record) {
  if (record.contains("text")) return PlainText{record["text"]};
  if (record.contains("instruction"))
    return Instruction{record["instruction"], record["input"], record["output"],
                       optional_text(record, "system")};
  if (record.contains("prompt"))
    return PromptCompletion{record["prompt"], record["completion"], optional_text(record, "system")};
  Conversation conversation;
  for (const Json& message : record["messages"])
    conversation.messages.push_back(
        {message["role"], message["content"], optional_text(message, "reasoning_content")});
  return conversation;
}

TEST(ChatTemplate, DocumentsEqualTheIndependentRendering) {
  std::map<std::string, Tokenizer> tokenizers;
  std::ifstream file(testing::golden_dir() / "templates" / "cases.jsonl");
  std::int64_t cases = 0;
  for (std::string line; std::getline(file, line);) {
    ++cases;
    const Json golden = Json::parse(line);
    const std::string name = golden["tokenizer"], chosen = golden["template"];
    const Tokenizer& tokenizer = tokenizers.try_emplace(name, golden_tokenizer(name)).first->second;
    Renderer renderer(tokenizer, {.chat_template = resolve_template(chosen, ""),
                                  .train_on = parse_train_on(golden["train_on"].get<std::string>()),
                                  .model_eos_id = std::nullopt});
    const Rendered rendered = renderer.render(read_record(golden["record"]));
    EXPECT_EQ(rendered.control_spellings, 0);
    ASSERT_EQ(rendered.documents.size(), golden["documents"].size()) << line;
    for (std::size_t i = 0; i < rendered.documents.size(); ++i) {
      const Json& expected = golden["documents"][i];
      EXPECT_EQ(rendered.documents[i].tokens, expected["tokens"].get<std::vector<TokenId>>()) << line;
      EXPECT_EQ(rendered.documents[i].loss_mask, expected["loss_mask"].get<std::vector<std::uint8_t>>())
          << line;
    }
  }
  EXPECT_GT(cases, 150);
}

TEST(ChatTemplate, ExportedJinjaIsTheCheckedOne) {
  std::int64_t checked = 0;
  for (const auto& entry : std::filesystem::directory_iterator(testing::golden_dir() / "templates")) {
    if (entry.path().extension() != ".jinja") continue;
    const std::string stem = entry.path().stem().string();
    const std::string chosen = stem.substr(0, stem.find('.')), tokenizer = stem.substr(stem.find('.') + 1);
    EXPECT_EQ(jinja_source(resolve_template(chosen, ""), golden_tokenizer(tokenizer)),
              testing::read_text(entry.path()))
        << stem;
    ++checked;
  }
  EXPECT_EQ(checked, 12);
}

/// `tokens` with the untrained part before a bar, as text: what a person would check.
std::string show(const Tokenizer& tokenizer, const Document& document) {
  std::string text;
  for (std::size_t begin = 0; begin < document.tokens.size();) {
    std::size_t end = begin;
    while (end < document.tokens.size() && document.loss_mask[end] == document.loss_mask[begin]) ++end;
    const auto part = tokenizer.decode(std::span(document.tokens).subspan(begin, end - begin));
    text += document.loss_mask[begin] ? "{" + part + "}" : part;
    begin = end;
  }
  return text;
}

Conversation two_turns() {
  return {{{"user", "Q1", std::nullopt},
           {"assistant", "<think>\nT1\n</think>\n\nA1", std::nullopt},
           {"human", "Q2", std::nullopt},
           {"GPT", "A2", std::nullopt}}};
}

TEST(ChatTemplate, Qwen3MakesADocumentOfEachAnswer) {
  const Tokenizer tokenizer = golden_tokenizer("qwen");
  Renderer renderer(tokenizer, {.chat_template = ChatTemplate::qwen3});
  const Rendered all = renderer.render(two_turns());
  ASSERT_EQ(all.documents.size(), 2u);
  EXPECT_EQ(
      show(tokenizer, all.documents[0]),
      "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\n{<think>\nT1\n</think>\n\nA1<|im_end|>}\n");
  EXPECT_EQ(
      show(tokenizer, all.documents[1]),
      "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n"
      "<|im_start|>assistant\n{<think>\n\n</think>\n\nA2<|im_end|>}\n");
  EXPECT_EQ(all.control_spellings, 0);
  Renderer last(tokenizer, {.chat_template = ChatTemplate::qwen3, .train_on = TrainOn::last});
  const Rendered one = last.render(two_turns());
  ASSERT_EQ(one.documents.size(), 1u);
  EXPECT_EQ(one.documents[0].tokens, all.documents[1].tokens);
}

TEST(ChatTemplate, Qwen3AnswersInARowStandAsTheyDidWhenTheNextWasGenerated) {
  const Tokenizer tokenizer = golden_tokenizer("qwen");
  Renderer renderer(tokenizer, {.chat_template = ChatTemplate::qwen3, .train_on = TrainOn::last});
  const Conversation conversation{{{"user", "Q"}, {"assistant", "A1"}, {"assistant", "A2"}}};
  EXPECT_EQ(show(tokenizer, renderer.render(conversation).documents.at(0)),
            "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nA1<|im_end|>\n"
            "<|im_start|>assistant\n{<think>\n\n</think>\n\nA2<|im_end|>}\n");
}

TEST(ChatTemplate, PlainTemplates) {
  const Tokenizer tokenizer = golden_tokenizer("llama3");
  const auto shown = [&](ChatTemplate chosen, const TextRecord& record) {
    return show(tokenizer, Renderer(tokenizer, {.chat_template = chosen}).render(record).documents.at(0));
  };
  const PromptCompletion pair{.prompt = "P", .completion = "C"};
  EXPECT_EQ(shown(ChatTemplate::simple, pair), "<|begin_of_text|>P\n{C<|end_of_text|>}");
  EXPECT_EQ(shown(ChatTemplate::none, pair), "<|begin_of_text|>P{C<|end_of_text|>}");
  EXPECT_EQ(shown(ChatTemplate::qwen3, PlainText{"abc"}), "<|begin_of_text|>{abc<|end_of_text|>}");
  EXPECT_EQ(shown(ChatTemplate::unresolved, PlainText{"abc"}), "<|begin_of_text|>{abc<|end_of_text|>}");
  EXPECT_EQ(shown(ChatTemplate::alpaca, Instruction{.instruction = "I", .input = "X", .output = "O"}),
            "<|begin_of_text|>Below is an instruction that describes a task, paired with an input that "
            "provides further "
            "context. Write a response that appropriately completes the request.\n\n### "
            "Instruction:\nI\n\n### Input:\nX"
            "\n\n### Response:{O<|end_of_text|>}");
  const Conversation with_system{
      {{"system", "S", std::nullopt}, {"user", "U", std::nullopt}, {"assistant", "A", std::nullopt}}};
  EXPECT_EQ(shown(ChatTemplate::simple, with_system), "<|begin_of_text|>S\n\nU\n{A<|end_of_text|>}");
}

TEST(ChatTemplate, ControlTokensInARecordStayTextAndAreCounted) {
  const Tokenizer tokenizer = golden_tokenizer("qwen");
  Renderer renderer(tokenizer, {.chat_template = ChatTemplate::chatml});
  const PromptCompletion record{.prompt = "a<|im_end|>\n<|im_start|>assistant\nb<think>",
                                .completion = "c<|endoftext|>"};
  const Rendered rendered = renderer.render(record);
  EXPECT_EQ(rendered.control_spellings, 3);
  const Document& document = rendered.documents.at(0);
  EXPECT_EQ(show(tokenizer, document), "<|im_start|>user\n" + record.prompt +
                                           "<|im_end|>\n<|im_start|>assistant\n{" + record.completion +
                                           "<|im_end|>}\n");
  const auto count = [&](const char* token) {
    return std::count(document.tokens.begin(), document.tokens.end(), tokenizer.id_of(token).value());
  };
  EXPECT_EQ(count("<|im_end|>"), 2);  // the template's own
  EXPECT_EQ(count("<|im_start|>"), 2);
  EXPECT_EQ(count("<|endoftext|>"), 0);
  EXPECT_EQ(count("<think>"), 1);  // an added token that chatml does not emit
  Renderer thinking(tokenizer, {.chat_template = ChatTemplate::qwen3});
  EXPECT_EQ(thinking.render(record).control_spellings, 4);
}

TEST(ChatTemplate, ThePromptIsWhatStandsBeforeTheTrainedAnswer) {
  const Tokenizer tokenizer = golden_tokenizer("qwen");
  for (const ChatTemplate chosen : {ChatTemplate::qwen3, ChatTemplate::chatml}) {
    Renderer renderer(tokenizer, {.chat_template = chosen, .train_on = TrainOn::last});
    Conversation conversation = two_turns();
    const Document whole = renderer.render(conversation).documents.at(0);
    conversation.messages.pop_back();
    const Document prompt = renderer.render_prompt(conversation);
    ASSERT_LT(prompt.tokens.size(), whole.tokens.size());
    EXPECT_TRUE(std::equal(prompt.tokens.begin(), prompt.tokens.end(), whole.tokens.begin()));
    EXPECT_EQ(whole.loss_mask[prompt.tokens.size()], 1);
    EXPECT_EQ(whole.loss_mask[prompt.tokens.size() - 1], 0);
  }
}

TEST(ChatTemplate, AutoFollowsTheFamily) {
  EXPECT_EQ(resolve_template("auto", "qwen3"), ChatTemplate::qwen3);
  EXPECT_EQ(resolve_template("auto", "llama"), ChatTemplate::llama3);
  EXPECT_EQ(resolve_template("auto", "mistral"), ChatTemplate::mistral);
  EXPECT_EQ(resolve_template("auto", "nemotron"), ChatTemplate::unresolved);
  EXPECT_EQ(resolve_template("chatml", "llama"), ChatTemplate::chatml);
  EXPECT_THROW(resolve_template("vicuna", "llama"), UserError);
  EXPECT_THROW(parse_train_on("first"), UserError);
  for (const char* name : {"auto", "qwen3", "none"})
    EXPECT_EQ(template_name(resolve_template(name, "")), name);
}

TEST(ChatTemplate, EndTokens) {
  const Tokenizer llama = golden_tokenizer("llama3"), plain = golden_tokenizer("characters");
  EXPECT_EQ(end_token(ChatTemplate::llama3, llama), llama.id_of("<|eot_id|>"));
  EXPECT_EQ(end_token(ChatTemplate::simple, llama), llama.id_of("<|end_of_text|>"));
  EXPECT_EQ(end_token(ChatTemplate::none, plain, 5), 5u);
  EXPECT_THROW(end_token(ChatTemplate::none, plain), UserError);
}

template <class Record>
std::string error_of(const char* tokenizer, ChatTemplate chosen, const Record& record) {
  try {
    const Tokenizer used = golden_tokenizer(tokenizer);
    Renderer(used, {.chat_template = chosen}).render(record);
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

TEST(ChatTemplate, Refusals) {
  const auto one = [](const char* role) { return Conversation{{{role, "x", std::nullopt}}}; };
  EXPECT_THAT(error_of("llama3", ChatTemplate::chatml, two_turns()), HasSubstr("no token '<|im_start|>'"));
  EXPECT_THAT(error_of("llama3", ChatTemplate::unresolved, two_turns()), HasSubstr("set prepare.template"));
  EXPECT_THAT(error_of("llama3", ChatTemplate::simple, two_turns()),
              HasSubstr("one question and one answer"));
  EXPECT_THAT(error_of("qwen", ChatTemplate::chatml, one("tool")), HasSubstr("the role 'tool'"));
  EXPECT_THAT(error_of("qwen", ChatTemplate::chatml, Conversation{}), HasSubstr("no messages"));
  EXPECT_THAT(error_of("sentencepiece", ChatTemplate::mistral, one("assistant")), HasSubstr("expected user"));
  const Conversation late_system{{{"user", "x", std::nullopt}, {"system", "y", std::nullopt}}};
  EXPECT_THAT(error_of("deepseek", ChatTemplate::deepseek, late_system), HasSubstr("only as the first"));
  // A conversation without an answer is a document without a trained token.
  EXPECT_EQ(error_of("qwen", ChatTemplate::qwen3, one("user")), "no error");
}

}  // namespace
}  // namespace verne
