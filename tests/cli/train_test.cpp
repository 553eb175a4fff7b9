// The program as its users see it: training, stopping, resuming.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "cli.hpp"
#include "verne/base/hash.hpp"

namespace verne::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class Train : public ::testing::Test {
 protected:
  void SetUp() override { write_small_case(root()); }
  const fs::path& root() const { return directory_.path(); }
  fs::path run() const { return root() / "run"; }

  CommandResult train(int ranks, const std::string& settings = "") const {
    return verne(root(), ranks, "train deck.ini " + settings);
  }
  void train_to(int exit_code, int ranks, const std::string& settings = "") const {
    const CommandResult result = train(ranks, settings);
    ASSERT_EQ(result.exit_code, exit_code) << settings << "\n" << result.output << result.errors;
  }
  std::vector<std::string> checkpoints() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(run() / "checkpoints"))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  TemporaryDirectory directory_;
};

TEST_F(Train, WritesARowForEveryStepAndLearns) {
  train_to(0, 1);
  const MetricsRows rows = read_metrics(run());
  EXPECT_EQ(column(rows, "step"), (std::vector<std::string>{"0", "1", "2", "3", "4", "5", "6", "7", "8"}));
  EXPECT_EQ(column(rows, "consumed_samples"),
            (std::vector<std::string>{"", "4", "8", "12", "16", "20", "24", "28", "32"}));
  for (std::size_t i = 0; i < rows.size(); ++i)
    EXPECT_EQ(rows[i].at("val_loss").empty(), i % 4 != 0) << "row " << i;
  EXPECT_TRUE(rows[0].at("loss").empty());
  // Random weights begin near ln(432) = 6.068: a logit's deviation is 0.05 · √32 = 0.28, and few different
  // tokens are targets.
  EXPECT_NEAR(std::stod(rows[1].at("loss")), 6.068, 0.28);
  EXPECT_LT(std::stod(rows[8].at("loss")), 5.0);
  EXPECT_LT(std::stod(rows[8].at("val_loss")), std::stod(rows[0].at("val_loss")) - 1);
  EXPECT_EQ(checkpoints(),
            (std::vector<std::string>{"best", "last", "step_00000006.h5", "step_00000008.h5"}));
}

/// Steps are read late, some of them two at a time; each is timed for itself all the same.
TEST_F(Train, EveryStepHasItsOwnTime) {
  train_to(0, 1);
  std::vector<double> times;
  for (const auto& row : read_metrics(run(), Columns::all))
    if (!row.at("step_time_s").empty()) times.push_back(std::stod(row.at("step_time_s")));
  ASSERT_EQ(times.size(), 8u);
  std::sort(times.begin(), times.end());
  EXPECT_GT(times.front(), times[4] / 5);
}

TEST_F(Train, ManifestNamesInputsByTheirSha256) {
  train_to(0, 1);
  const auto manifest = nlohmann::json::parse(read_text(run() / "manifest.json"));
  std::map<std::string, std::string> found;
  for (const auto& input : manifest.at("inputs"))
    found[fs::path(input.at("path").get<std::string>()).filename()] = input.at("sha256");
  EXPECT_EQ(found.at("config.json"), sha256_hex(read_text(root() / "config.json")));
  EXPECT_EQ(found.at("train.jsonl"), sha256_hex(read_text(root() / "train.jsonl")));
  EXPECT_EQ(found.at("validation.jsonl"), sha256_hex(read_text(root() / "validation.jsonl")));
  EXPECT_EQ(found.at("train.h5"), sha256_hex(read_text(run() / "data" / "train.h5")));
}

TEST_F(Train, UsedInputsReplayTheRun) {
  train_to(0, 1, "--optimizer.lr=2e-3 --prepare.train_on=last");
  const MetricsRows rows = read_metrics(run());
  const CommandResult again = verne(root(), 1, "train run/used_inputs.ini --run.dir=again");
  ASSERT_EQ(again.exit_code, 0) << again.errors;
  EXPECT_EQ(read_metrics(root() / "again"), rows);
}

TEST_F(Train, SplitOfJsonlIsReplayedToo) {
  train_to(0, 1, "--data.validation=train.jsonl --prepare.split=0.5,0.5,0 --train.max_steps=1");
  EXPECT_THAT(read_text(run() / "used_inputs.ini"), HasSubstr("split = 0.5,0.5,0"));
}

TEST_F(Train, StoppedAndResumedRepeatsItsBits) {
  train_to(0, 1);
  const MetricsRows whole = read_metrics(run());
  const std::string weights = read_text(run() / "checkpoints" / "step_00000008.h5");
  fs::remove_all(run());
  train_to(75, 1, "--train.stop_step=4");
  EXPECT_EQ(read_metrics(run()).size(), 5u);
  EXPECT_EQ(fs::read_symlink(run() / "checkpoints" / "last"), "step_00000004.h5");
  train_to(75, 1, "--train.stop_step=5");
  train_to(0, 1);
  EXPECT_EQ(read_metrics(run()), whole);
}

TEST_F(Train, RowsAfterTheLastCheckpointAreMadeAgain) {
  train_to(0, 1);
  const MetricsRows whole = read_metrics(run());
  // As a kill after step 8 leaves it, in the middle of a row.
  fs::remove(run() / "checkpoints" / "step_00000008.h5");
  const std::string metrics = read_text(run() / "metrics.csv");
  write_text(run() / "metrics.csv", metrics.substr(0, metrics.size() - 20));
  train_to(0, 1);
  EXPECT_EQ(read_metrics(run()), whole);
}

TEST_F(Train, WithoutAWholeCheckpointItStartsAtTheBeginning) {
  train_to(0, 1);
  const MetricsRows whole = read_metrics(run());
  for (const char* name : {"step_00000006.h5", "step_00000008.h5"}) {
    const fs::path file = run() / "checkpoints" / name;
    fs::resize_file(file, fs::file_size(file) / 2);
  }
  train_to(0, 1);
  EXPECT_EQ(read_metrics(run()), whole);
}

TEST_F(Train, FinishedRunStaysAsItIs) {
  train_to(0, 1, "--train.export=hf");
  auto before = snapshot(run());
  train_to(0, 1, "--train.export=hf");
  auto after = snapshot(run());
  for (auto* files : {&before, &after}) {
    std::erase_if(*files, [](const auto& file) {
      return file.first == "log.txt" || file.first.starts_with("logs/") || file.first == ".lock";
    });
  }
  EXPECT_EQ(before, after);
}

TEST_F(Train, FinishedRunIsExportedLater) {
  train_to(0, 1);
  EXPECT_FALSE(fs::exists(run() / "hf"));
  train_to(0, 1, "--train.export=hf");
  EXPECT_TRUE(fs::exists(run() / "hf" / "model.safetensors"));
}

TEST_F(Train, AnotherOptimizerKeyIsRefused) {
  train_to(75, 1, "--train.stop_step=3");
  const auto before = snapshot(run() / "checkpoints");
  const CommandResult result = train(1, "--optimizer.beta2=0.95");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.errors, HasSubstr("optimizer.beta2: 0.98 in the checkpoint, 0.95 now"));
  EXPECT_EQ(snapshot(run() / "checkpoints"), before);
  // Step limits and intervals are no part of the run's identity.
  train_to(75, 1,
           "--checkpoint.interval=1 --train.val_interval=2 --train.log_interval=2 --train.stop_step=5");
}

TEST_F(Train, AMovedRunResumes) {
  train_to(75, 1, "--train.stop_step=3");
  fs::rename(run(), root() / "moved");
  train_to(0, 1, "--run.dir=moved");
  EXPECT_EQ(read_metrics(root() / "moved").size(), 9u);
}

TEST_F(Train, ResumesInAnotherLayout) {
  train_to(0, 1);
  const MetricsRows whole = read_metrics(run());
  fs::remove_all(run());
  train_to(75, 2, "--parallel.tensor=2 --train.stop_step=3");
  train_to(75, 1, "--train.stop_step=5");
  train_to(0, 2);  // two data ranks
  expect_curves_close(read_metrics(run()), whole);
}

TEST_F(Train, LayoutsAgree) {
  train_to(0, 1);
  const MetricsRows whole = read_metrics(run());
  fs::remove_all(run());
  train_to(0, 4, "--parallel.tensor=2");
  expect_curves_close(read_metrics(run()), whole);
  fs::remove_all(run());
  train_to(0, 4, "--parallel.tensor=4");  // two kv heads on four ranks
  expect_curves_close(read_metrics(run()), whole);
}

TEST_F(Train, SignalStopsWithACheckpoint) {
  for (const int ranks : {1, 2}) {
    for (const std::string signal : {"TERM", "INT", "USR1"}) {
      if (ranks == 2 && signal == "INT") continue;
      const std::string dir = "run_" + signal + std::to_string(ranks);
      const std::string command =
          verne_command(ranks, "train deck.ini --train.max_steps=1000000 --run.dir=" + dir) +
          " & job=$!\n"
          "while [ $(wc -l < " +
          dir +
          "/metrics.csv 2>/dev/null || echo 0) -lt 4 ]; do sleep 0.1; done\n"
          // The ranks' processes, each by its id: those that run the program itself with this run.dir.
          "for p in /proc/[0-9]*; do\n"
          "  [ \"$(readlink $p/exe)\" = '" +
          fs::canonical(verne_program()).string() +
          "' ] && "
          "[ \"$(readlink $p/cwd)\" = '" +
          fs::canonical(root()).string() + "' ] && kill -" + signal +
          " ${p#/proc/}\n"
          "done\n"
          "wait $job";
      const CommandResult result = run_shell(root(), command);
      ASSERT_EQ(result.exit_code, 75) << signal << " on " << ranks << "\n" << result.output << result.errors;
      EXPECT_THAT(result.output, HasSubstr("SIG" + signal));
      const MetricsRows rows = read_metrics(root() / dir);
      const std::string last = fs::read_symlink(root() / dir / "checkpoints" / "last");
      EXPECT_EQ(std::stoi(last.substr(5)), std::stoi(rows.back().at("step")));
      EXPECT_TRUE(fs::is_regular_file(root() / dir / "checkpoints" / last));
    }
  }
}

TEST_F(Train, DryRunWritesNoCheckpoint) {
  const CommandResult result = train(2, "--run.dry_run --parallel.tensor=2");
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_FALSE(fs::exists(run() / "checkpoints"));
  EXPECT_FALSE(fs::exists(run() / "metrics.csv"));
  EXPECT_THAT(result.output, HasSubstr("global_batch = 4"));
  EXPECT_THAT(result.output, HasSubstr("«"));
  EXPECT_THAT(result.output, HasSubstr("What is"));
}

TEST_F(Train, StopsEarly) {
  // A learning rate of nothing improves nothing: validations at 2, 4, 6 the ones at 4 and 6 do not better
  // that at 2.
  train_to(0, 1, "--optimizer.lr=0 --train.val_interval=2 --early_stopping.patience=2 --train.max_steps=50");
  const MetricsRows rows = read_metrics(run());
  EXPECT_EQ(rows.back().at("step"), "6");
  const auto before = snapshot(run() / "checkpoints");
  train_to(0, 1, "--optimizer.lr=0 --train.val_interval=2 --early_stopping.patience=2 --train.max_steps=50");
  EXPECT_EQ(snapshot(run() / "checkpoints"), before);
}

TEST_F(Train, KeepsTheNewestAndTheBest) {
  train_to(0, 1,
           "--checkpoint.interval=1 --checkpoint.keep=3 --checkpoint.keep_best=2 --train.val_interval=2");
  // Validation loss falls all the way: the two best are 8 and 6.
  EXPECT_EQ(checkpoints(), (std::vector<std::string>{"best", "last", "step_00000006.h5", "step_00000007.h5",
                                                     "step_00000008.h5"}));
  EXPECT_EQ(fs::read_symlink(run() / "checkpoints" / "best"), "step_00000008.h5");
}

TEST_F(Train, IntervalZeroSavesAtTheEndAlone) {
  train_to(0, 1, "--checkpoint.interval=0 --checkpoint.keep_best=0");
  EXPECT_EQ(checkpoints(), (std::vector<std::string>{"last", "step_00000008.h5"}));
}

TEST_F(Train, AsynchronousCheckpointsHoldTheSame) {
  train_to(0, 2, "--parallel.tensor=2");
  const MetricsRows whole = read_metrics(run());
  fs::remove_all(run());
  train_to(75, 2, "--parallel.tensor=2 --checkpoint.async=true --train.stop_step=5");
  train_to(0, 2, "--parallel.tensor=2 --checkpoint.async=true");
  EXPECT_EQ(read_metrics(run()), whole);
}

TEST_F(Train, TokenizedRecordsNeedNoTokenizer) {
  std::string records;
  for (int i = 0; i < 40; ++i)
    records += R"({"tokens": [5, 6, 7, 8, )" + std::to_string(i) +
               R"(, 9], "loss_mask": [0, 0, 0, 1, 1, 1]})"
               "\n";
  write_text(root() / "tokens.jsonl", records);
  write_text(
      root() / "tokens.ini",
      "[run]\ndir = run\ndevice = cpu\n[model]\nconfig = config.json\ninit = random\ndtype = fp32\n[data]\n"
      "train = tokens.jsonl\nseq_length = 16\npacking = false\nshuffle = false\n[train]\nmax_steps = 2\n"
      "global_batch = 4\nval_interval = 0\n[prepare]\nsplit = 1,0,0\n");
  const CommandResult result = verne(root(), 1, "train tokens.ini");
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const MetricsRows rows = read_metrics(run());
  EXPECT_EQ(column(rows, "step"), (std::vector<std::string>{"1", "2"}));
  EXPECT_EQ(rows[1].at("consumed_tokens"), "48");
  EXPECT_NEAR(std::stod(rows[0].at("loss")), 6.068, 0.2);
  EXPECT_EQ(checkpoints(), (std::vector<std::string>{"last", "step_00000002.h5"}));
}

TEST_F(Train, PretrainsOnText) {
  std::string records;
  for (int i = 0; i < 40; ++i)
    records += R"({"text": "the sun rises and the sun sets, day )" + std::to_string(i) + "\"}\n";
  write_text(root() / "text.jsonl", records);
  std::string deck = read_text(root() / "deck.ini");
  for (const std::string key : {"input_key = question\n", "output_key = answer\n"})
    deck.erase(deck.find(key), key.size());
  write_text(root() / "deck.ini", deck);
  train_to(0, 2, "--data.train=text.jsonl --data.validation=text.jsonl");
  const MetricsRows rows = read_metrics(run());
  EXPECT_LT(std::stod(rows.back().at("loss")), std::stod(rows[1].at("loss")) - 0.5);
}

TEST(Program, AnswersWithoutMpi) {
  const TemporaryDirectory directory;
  const CommandResult help = verne(directory.path(), 1, "--help");
  EXPECT_EQ(help.exit_code, 0);
  for (const char* verb : {"prepare", "tokenize", "import", "train", "score", "export", "inspect"})
    EXPECT_THAT(help.output, HasSubstr(std::string("\n  ") + verb));
  const CommandResult version = verne(directory.path(), 1, "--version");
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_EQ(version.output.substr(0, 6), "verne ");
  const CommandResult verb = verne(directory.path(), 1, "train --help");
  EXPECT_EQ(verb.exit_code, 0);
  EXPECT_THAT(verb.output, HasSubstr("--optimizer.lr"));
  EXPECT_EQ(help.errors + version.errors + verb.errors, "");
  // Broken settings of Open MPI would end a program that starts it.
  const CommandResult broken =
      run_shell(directory.path(), "OMPI_MCA_btl=none OMPI_MCA_pml=none " + verne_program() + " --help");
  EXPECT_EQ(broken.exit_code, 0);
}

TEST(Program, RefusesAnUnknownVerb) {
  const TemporaryDirectory directory;
  for (const int ranks : {1, 2}) {
    for (const char* verb : {"trian", "generate"}) {
      const CommandResult result = verne(directory.path(), ranks, verb);
      EXPECT_EQ(result.exit_code, 2) << result.errors;
      EXPECT_THAT(result.errors, HasSubstr(verb));
    }
    const CommandResult near = verne(directory.path(), ranks, "trian");
    EXPECT_THAT(near.errors, HasSubstr("train"));
  }
}

}  // namespace
}  // namespace verne::testing
