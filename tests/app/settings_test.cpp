#include "verne/app/settings.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "testing.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

template <class F>
std::string user_error(F&& action) {
  try {
    action();
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}
std::string deck_error(std::string_view text) {
  return user_error([text] { read_deck_text(text, "d.ini"); });
}
std::string line_error(std::vector<std::string> arguments) {
  return user_error([&] { parse_command_line(arguments); });
}

TEST(Deck, ReadsSectionsCommentsAndQuotes) {
  const auto settings = read_deck_text(
      "\xEF\xBB\xBF# a run\r\n"
      "[model]\r\n"
      "path = models/a#b   # the base\r\n"
      "; also a comment\n"
      "\n"
      "[ train ]\n"
      "  max_steps=10\n"
      "[run]\n"
      "dir = \"  x # \\\"y\\\" \\\\ \"\n"
      "[optimizer]\n"
      "lr = 5e-6",
      "d.ini");
  ASSERT_EQ(settings.size(), 4u);
  EXPECT_EQ(settings[0].key, "model.path");
  EXPECT_EQ(settings[0].value, "models/a#b");
  EXPECT_EQ(settings[0].origin, "d.ini:3");
  EXPECT_EQ(settings[1].key, "train.max_steps");
  EXPECT_EQ(settings[1].value, "10");
  EXPECT_EQ(settings[2].value, "  x # \"y\" \\ ");
  EXPECT_EQ(settings[3].key, "optimizer.lr");
  EXPECT_EQ(settings[3].origin, "d.ini:11");
}

TEST(Deck, FullKeysBeforeAnySection) {
  const auto settings = read_deck_text("train.max_steps = 3\n", "d.ini");
  ASSERT_EQ(settings.size(), 1u);
  EXPECT_EQ(settings[0].key, "train.max_steps");
}

TEST(Deck, SaysWhatIsWrongAndWhere) {
  EXPECT_THAT(
      deck_error("[train]\nmax_stepps = 3\n"),
      StartsWith("d.ini:2: unknown key train.max_stepps. The nearest known key is train.max_steps ("));
  EXPECT_THAT(deck_error("[optimizer]\nlearning_rate = 3\n"),
              StartsWith("d.ini:2: unknown key optimizer.learning_rate. Write optimizer.lr ("));
  EXPECT_EQ(deck_error("[train]\nmax_steps = 3\n\nmax_steps = 4\n"),
            "d.ini:4: train.max_steps is given twice; it was first given at d.ini:2");
  EXPECT_EQ(deck_error("[train]\nmax_steps =  # none\n"),
            "d.ini:2: train.max_steps has no value. Leave the line out to keep the default.");
  EXPECT_THAT(deck_error("[train]\nmax_steps\n"), StartsWith("d.ini:2: \"max_steps\" is neither"));
  EXPECT_THAT(deck_error("[train\n"), StartsWith("d.ini:1: \"[train\" should be [section]"));
  EXPECT_THAT(deck_error("[trainer]\n"),
              StartsWith("d.ini:1: unknown section [trainer]. The sections are run, model,"));
  EXPECT_THAT(deck_error("[run]\ndir = \"x\n"), HasSubstr("d.ini:2: run.dir has an opening quote"));
  EXPECT_THAT(deck_error("[run]\ndir = \"x\" y\n"),
              HasSubstr("d.ini:2: run.dir has text after its closing quote"));
  EXPECT_THAT(deck_error(std::string("[run]\ndir = a\0b\n", 15)),
              HasSubstr("d.ini:2: holds a control character"));
  EXPECT_THAT(deck_error(std::string(2 << 20, ' ')), HasSubstr("too many for a deck"));
  EXPECT_THAT(deck_error("= 3\n"), StartsWith("d.ini:1: "));
}

TEST(Deck, BadValuesNameKeyValueAndLine) {
  Deck deck;
  const auto error = [&](std::string_view text) {
    return user_error([&] { apply_settings(read_deck_text(text, "d.ini"), deck); });
  };
  EXPECT_EQ(error("[train]\nmax_steps = 3x\n"), "d.ini:2: train.max_steps = 3x: expected a whole number ≥ 0");
  EXPECT_EQ(error("[optimizer]\nlr = nan\n"), "d.ini:2: optimizer.lr = nan: expected a number ≥ 0");
  EXPECT_EQ(error("[optimizer]\nbeta1 = 1\n"),
            "d.ini:2: optimizer.beta1 = 1: expected a number 0 to 1, 1 excluded");
  EXPECT_EQ(error("[data]\noverlong = cut\n"),
            "d.ini:2: data.overlong = cut: expected error, drop or truncate");
  EXPECT_EQ(error("[data]\npacking = 2\n"), "d.ini:2: data.packing = 2: expected true or false");
  EXPECT_EQ(error("[prepare]\nsplit = 0.9,0.2,0.1\n"),
            "d.ini:2: prepare.split = 0.9,0.2,0.1: expected 3 numbers that add up to 1, as in 0.9,0.05,0.05");
  EXPECT_EQ(error("[train]\nmicro_batch = 9223372036854775808\n"),
            "d.ini:2: train.micro_batch = 9223372036854775808: expected a whole number ≥ 1");
}

TEST(Deck, UnreadableFiles) {
  const testing::TemporaryDirectory directory;
  EXPECT_THAT(user_error([&] { read_deck_file(directory.path() / "none.ini"); }),
              HasSubstr("none.ini cannot be read"));
  EXPECT_THAT(user_error([&] { read_deck_file(directory.path()); }), HasSubstr("is a folder"));
}

TEST(CommandLine, VerbDeckRecipeAndKeys) {
  const std::vector<std::string> arguments = {
      "train",          "deck.ini", "--recipe",       "qwen3_0p6b", "--train.max_steps=5", "--run.dry_run",
      "--optimizer.lr", "1e-5",     "--data.shuffle", "false",      "--run.dir=a=b"};
  const Invocation invocation = parse_command_line(arguments);
  EXPECT_EQ(invocation.verb, Verb::train);
  EXPECT_EQ(invocation.deck, "deck.ini");
  EXPECT_EQ(invocation.recipe, "qwen3_0p6b");
  Deck deck;
  apply_settings(invocation.settings, deck);
  EXPECT_EQ(deck.train.max_steps, 5);
  EXPECT_TRUE(deck.run.dry_run);
  EXPECT_EQ(deck.optimizer.lr, 1e-5);
  EXPECT_FALSE(deck.data.shuffle);
  EXPECT_EQ(deck.run.dir, "a=b");
}

TEST(CommandLine, HelpAndVersionNeedNothingElse) {
  EXPECT_EQ(parse_command_line(std::vector<std::string>{"--version"}).request, Invocation::Request::version);
  const auto help = parse_command_line(std::vector<std::string>{"train", "--help"});
  EXPECT_EQ(help.request, Invocation::Request::help);
  EXPECT_EQ(help.verb, Verb::train);
}

TEST(CommandLine, SaysWhatIsWrong) {
  EXPECT_EQ(line_error({"trian"}),
            "unknown verb trian. The nearest is train; there are prepare, tokenize, import, train, score, "
            "export, inspect.");
  EXPECT_THAT(line_error({"generate"}), StartsWith("unknown verb generate."));
  EXPECT_THAT(line_error({}), StartsWith("verne needs a verb"));
  EXPECT_THAT(line_error({"train", "--train.lrr=3"}), StartsWith("command line: unknown key train.lrr. "));
  EXPECT_THAT(line_error({"train", "--tensor_model_parallel_size", "2"}),
              StartsWith("command line: unknown key tensor_model_parallel_size. Write parallel.tensor ("));
  EXPECT_EQ(line_error({"train", "--run.dir="}), "command line: --run.dir has no value");
  EXPECT_EQ(line_error({"train", "--run.dir"}),
            "command line: --run.dir has no value. Write --run.dir=VALUE.");
  EXPECT_EQ(line_error({"train", "--run.dir=a", "--run.dir=b"}),
            "command line: run.dir is given twice; it was first given at command line");
  EXPECT_THAT(line_error({"train", "a.ini", "b.ini"}), HasSubstr("there is one deck"));
  EXPECT_THAT(line_error({"train", "-n", "3"}), HasSubstr("unknown flag -n"));
  EXPECT_THAT(line_error({"train", "--=3"}), StartsWith("command line: unknown key "));
}

}  // namespace
}  // namespace verne
