// The program as its users see it: going back in a run, runs on top of runs, and what an error leaves behind.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "cli.hpp"

namespace verne::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class Resume : public ::testing::Test {
 protected:
  void SetUp() override { write_small_case(root()); }
  const fs::path& root() const { return directory_.path(); }
  fs::path run() const { return root() / "run"; }

  CommandResult train(int ranks, const std::string& settings = "") const {
    return verne(root(), ranks, "train deck.ini " + settings);
  }
  void train_to(int exit_code, const std::string& settings = "") const {
    const CommandResult result = train(1, settings);
    ASSERT_EQ(result.exit_code, exit_code) << settings << "\n" << result.output << result.errors;
  }
  std::vector<std::string> checkpoints() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(run() / "checkpoints"))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

  void make_vocabulary_odd() const {
    nlohmann::json config = nlohmann::json::parse(read_text(root() / "config.json"));
    config["vocab_size"] = 433;
    write_text(root() / "config.json", config.dump());
  }
  /// Whatever is allocated is overwritten with negative numbers, of which no square root can be taken.
  void poisoned_train_to(int exit_code, int ranks, const std::string& settings) const {
    const CommandResult result =
        run_shell(root(), "MALLOC_PERTURB_=1 " + verne_command(ranks, "train deck.ini " + settings));
    ASSERT_EQ(result.exit_code, exit_code) << settings << "\n" << result.output << result.errors;
  }

 private:
  TemporaryDirectory directory_;
};

TEST_F(Resume, GoingBackDropsWhatCameAfter) {
  train_to(0);
  const MetricsRows whole = read_metrics(run());
  train_to(75, "--checkpoint.resume=run/checkpoints/step_00000006.h5 --train.stop_step=7");
  // The best was step 8, which is to be done anew; no other was kept.
  EXPECT_EQ(checkpoints(), (std::vector<std::string>{"last", "step_00000006.h5", "step_00000007.h5"}));
  EXPECT_EQ(fs::read_symlink(run() / "checkpoints" / "last"), "step_00000007.h5");
  train_to(0);
  EXPECT_EQ(read_metrics(run()), whole);
  EXPECT_EQ(fs::read_symlink(run() / "checkpoints" / "best"), "step_00000008.h5");
}

/// What memory held before reaches no number: not through rows of padding, which no checkpoint holds, nor
/// otherwise.
TEST_F(Resume, RepeatsItsBitsOnPoisonedMemory) {
  make_vocabulary_odd();
  for (const auto& [ranks, layout] :
       {std::pair{1, ""}, std::pair{4, "--parallel.tensor=2 --parallel.pipeline=2"}}) {
    SCOPED_TRACE(layout);
    fs::remove_all(run());
    poisoned_train_to(0, ranks, layout);
    const MetricsRows whole = read_metrics(run());
    fs::remove_all(run());
    for (const int step : {3, 4, 6})
      poisoned_train_to(75, ranks, fmt::format("{} --train.stop_step={}", layout, step));
    poisoned_train_to(0, ranks, layout);
    EXPECT_EQ(read_metrics(run()), whole);
  }
}

TEST_F(Resume, ThroughAChainOfLayouts) {
  make_vocabulary_odd();
  train_to(0, "--train.max_steps=10");
  const MetricsRows whole = read_metrics(run());
  fs::remove_all(run());
  struct Link {
    int ranks, until;
    const char* layout;
  };
  for (const Link& link : {Link{4, 2, "--parallel.tensor=2 --parallel.pipeline=2"}, Link{4, 4, ""},
                           Link{4, 6, "--parallel.context=2 --parallel.tensor=2"}, Link{1, 8, ""},
                           Link{2, 10, "--parallel.pipeline=2 --parallel.virtual_pipeline=2"}})
    poisoned_train_to(link.until == 10 ? 0 : 75, link.ranks,
                      fmt::format("--train.max_steps=10 --train.stop_step={} {}", link.until, link.layout));
  expect_curves_close(read_metrics(run()), whole);
}

TEST_F(Resume, StartsFromACheckpointOfAnotherDirectory) {
  train_to(0);
  train_to(0, "--run.dir=other --checkpoint.resume=run/checkpoints/step_00000006.h5");
  const MetricsRows whole = read_metrics(run()), rest = read_metrics(root() / "other");
  EXPECT_EQ(rest, MetricsRows(whole.end() - 2, whole.end()));
  EXPECT_EQ(checkpoints(),
            (std::vector<std::string>{"best", "last", "step_00000006.h5", "step_00000008.h5"}));
}

TEST_F(Resume, WeightsOfTheBestAreCountedBetweenSavesToo) {
  const CommandResult result = run_shell(
      root(),
      verne_program() +
          " train deck.ini --train.max_steps=100000 --train.val_interval=1 --checkpoint.interval=0"
          " --optimizer.lr=1e-3 > out.txt 2>&1 & child=$!;"
          " for i in $(seq 300); do sleep 0.1; grep -q '^10,' run/metrics.csv 2>/dev/null && break; done;"
          " kill -9 $child; wait $child");
  ASSERT_EQ(result.exit_code, 137) << result.output << result.errors << read_text(root() / "out.txt");
  ASSERT_GE(read_metrics(run()).size(), 11u);
  std::vector<std::string> files = checkpoints();
  std::erase_if(files, [](const std::string& name) { return !name.starts_with("step_"); });
  // Validation loss falls at every step: one is kept, and the newest may not have replaced it yet.
  EXPECT_LE(files.size(), 2u) << ::testing::PrintToString(files);
}

TEST_F(Resume, TextIsTokenizedByTheCheckpointsOwnTokenizer) {
  train_to(0, "--train.max_steps=1");
  ASSERT_EQ(run_shell(root(), "sed -i '/^tokenizer/d; /^init/d; /^config/d' deck.ini").exit_code, 0);
  train_to(0, "--run.dir=second --model.path=run@last --train.max_steps=1");
  EXPECT_EQ(read_metrics(root() / "second").size(), 2u);
  EXPECT_THAT(read_text(root() / "second" / "manifest.json"), HasSubstr("\"tokenizer\""));
}

TEST_F(Resume, WhatEndsARunStandsInItsLogs) {
  train_to(0, "--train.max_steps=1");
  const CommandResult refused = train(2, "--optimizer.lr=1");
  EXPECT_EQ(refused.exit_code, 2);
  const std::string message = "belongs to another run";
  const std::size_t first = refused.errors.find(message);
  ASSERT_NE(first, std::string::npos) << refused.errors;
  EXPECT_EQ(refused.errors.find(message, first + 1), std::string::npos) << "said twice:\n" << refused.errors;
  for (const char* log : {"log.txt", "logs/rank_00000.txt", "logs/rank_00001.txt"})
    EXPECT_THAT(read_text(run() / log), HasSubstr(message)) << log;
}

TEST_F(Resume, ATiedHeadThatDiffersIsRefusedByAllAlike) {
  copy_folder(small_model(), root() / "tied");
  RawSafetensors weights = read_safetensors(root() / "tied" / "model.safetensors");
  const auto embedding = weights.header.at("model.embed_tokens.weight");
  const auto begin = embedding["data_offsets"][0].get<std::size_t>(),
             end = embedding["data_offsets"][1].get<std::size_t>();
  auto head = embedding;
  head["data_offsets"] = {weights.data.size(), weights.data.size() + end - begin};
  weights.header["lm_head.weight"] = head;
  weights.data += weights.data.substr(begin, end - begin);
  write_safetensors(root() / "tied" / "model.safetensors", weights);
  write_text(root() / "in.jsonl", "{\"tokens\": [1, 2, 3]}\n");
  const std::vector<std::string> commands = {
      "train deck.ini --model.init=pretrained --model.path=tied --train.max_steps=1 --run.dir=tied_run",
      "score --model.path=tied --score.input=in.jsonl --score.output=out.jsonl",
      "import --import.input=tied --import.output=out.h5"};
  for (const std::string& command : commands) {
    const CommandResult result = verne(root(), 1, command);
    EXPECT_EQ(result.exit_code, 0) << command << "\n" << result.errors;
  }
  weights.data.back() = static_cast<char>(weights.data.back() ^ 1);
  write_safetensors(root() / "tied" / "model.safetensors", weights);
  for (const std::string& command : commands) {
    const CommandResult result = verne(root(), 1, command + (command.starts_with("train") ? "_2" : ""));
    EXPECT_EQ(result.exit_code, 2) << command << "\n" << result.errors;
    EXPECT_THAT(result.errors, HasSubstr("lm_head.weight differs from model.embed_tokens.weight")) << command;
  }
}

}  // namespace
}  // namespace verne::testing
