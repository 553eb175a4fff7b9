#include "verne/app/deck.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "testing.hpp"
#include "verne/app/option_table.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Invocation invocation(std::vector<std::string> arguments) {
  return parse_command_line(arguments);
}

std::string check_error(Verb verb, const Deck& deck) {
  try {
    check_deck(verb, deck);
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

Deck train_deck() {
  Deck deck;
  deck.run.dir = "run";
  deck.data.train = {"train.h5"};
  deck.model.path = "model";
  return deck;
}

TEST(ResolveDeck, CommandLineOverDeckOverRecipe) {
  const testing::TemporaryDirectory directory;
  const auto deck = directory.path() / "d.ini";
  testing::write_text(deck, "[train]\nmax_steps = 7\nglobal_batch = 16\n");
  const auto resolved = resolve_deck(
      invocation({"train", deck, "--recipe", "qwen3_8b", "--train.global_batch=32", "--run.dir", "r"}));
  EXPECT_EQ(resolved.recipe, "qwen3_8b/finetune");
  EXPECT_EQ(resolved.deck.train.global_batch, 32);
  EXPECT_EQ(resolved.deck.train.max_steps, 7);
  EXPECT_EQ(resolved.deck.parallel.tensor, 2);
  EXPECT_EQ(resolved.deck.model.path, "Qwen/Qwen3-8B");
  EXPECT_EQ(resolved.deck.model.config, "");
}

TEST(ResolveDeck, PretrainingTakesTheRecipesShape) {
  const auto resolved = resolve_deck(invocation({"train", "--recipe=nemotron_8b/pretrain"}));
  EXPECT_EQ(resolved.recipe, "nemotron3_8b/pretrain");
  EXPECT_EQ(resolved.deck.model.init, Init::random);
  EXPECT_THAT(resolved.deck.model.config, HasSubstr("nemotron3_8b/config.json"));
  EXPECT_EQ(resolved.deck.optimizer.lr, 3e-4);
  EXPECT_EQ(resolved.deck.train.max_steps, 300000);
}

TEST(ResolveDeck, OneEpochWhereNothingIsSaid) {
  EXPECT_EQ(resolve_deck(invocation({"train"})).deck.train.epochs, 1);
  EXPECT_EQ(resolve_deck(invocation({"train", "--train.max_steps=3"})).deck.train.epochs, 0);
}

TEST(UsedInputs, ReplaysEveryKey) {
  const testing::TemporaryDirectory directory;
  const auto resolved = resolve_deck(
      invocation({"train", "--recipe=qwen3_0p6b", "--run.dir=a # b", "--data.train=x.jsonl,y\\,z.jsonl",
                  "--optimizer.lr=0.000012345678901", "--model.dtype=fp32", "--parallel.sequence=off",
                  "--prepare.special_tokens=<a>,\"b"}));
  const auto file = directory.path() / "used_inputs.ini";
  testing::write_text(file, used_inputs(Verb::train, resolved));
  const auto again = resolve_deck(invocation({"train", file}));
  for (const Option& option : option_table()) {
    EXPECT_EQ(option.get(again.deck), option.get(resolved.deck)) << option.key();
  }
  EXPECT_EQ(again.deck.run.dir, "a # b");
  EXPECT_EQ(again.deck.data.train[1], "y,z.jsonl");
  EXPECT_EQ(again.deck.optimizer.lr, 0.000012345678901);
  EXPECT_THAT(testing::read_text(file), HasSubstr("--recipe qwen3_0p6b/finetune"));
  EXPECT_THAT(testing::read_text(file), Not(HasSubstr("[score]")));
}

TEST(CheckDeck, Train) {
  EXPECT_EQ(check_error(Verb::train, train_deck()), "no error");
  Deck deck = train_deck();
  deck.run.dir.clear();
  EXPECT_THAT(check_error(Verb::train, deck), HasSubstr("run.dir is not given"));
  deck = train_deck();
  deck.parallel.expert = 2;
  EXPECT_THAT(check_error(Verb::train, deck), HasSubstr("parallel.expert = 2"));
  EXPECT_THAT(check_error(Verb::score, deck), HasSubstr("parallel.expert = 2"));
  deck = train_deck();
  deck.train.micro_batch = 3;
  EXPECT_THAT(check_error(Verb::train, deck),
              HasSubstr("train.global_batch = 8 is not a multiple of train.micro_batch = 3"));
  deck = train_deck();
  deck.optimizer.min_lr = 1;
  EXPECT_THAT(check_error(Verb::train, deck),
              HasSubstr("optimizer.min_lr = 1 is above optimizer.lr = 5e-06"));
  deck = train_deck();
  deck.checkpoint.monitor = "loss:min";
  EXPECT_THAT(check_error(Verb::train, deck),
              HasSubstr("checkpoint.monitor = loss:min: expected val_loss:min or val_loss:max"));
  deck = train_deck();
  deck.model.init = Init::random;
  deck.model.path.clear();
  EXPECT_THAT(check_error(Verb::train, deck), HasSubstr("model.config"));
}

TEST(CheckDeck, OtherVerbsNameWhatTheyNeed) {
  const std::pair<Verb, const char*> needs[] = {
      {Verb::prepare, "prepare.input"},     {Verb::tokenize, "tokenize.input"},
      {Verb::import, "import.input"},       {Verb::score, "model.path"},
      {Verb::export_, "export.checkpoint"}, {Verb::inspect, "inspect.input"}};
  for (const auto& [verb, key] : needs) {
    EXPECT_THAT(check_error(verb, Deck{}), HasSubstr(std::string(key) + " is not given"));
  }
  Deck deck;
  deck.prepare.input = {"tokenized.jsonl"};
  deck.prepare.output = "shards";
  EXPECT_EQ(check_error(Verb::prepare, deck), "no error") << "tokenized records need no tokenizer";
  deck.export_ = {"run", "out", ExportFormat::peft};
  EXPECT_THAT(check_error(Verb::export_, deck), HasSubstr("export.format = peft"));
}

}  // namespace
}  // namespace verne
