// `ulimit -f`: a write beyond the limit ends the program as a full disk does, whatever was being written.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli.hpp"

namespace verne::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class SizeLimit : public ::testing::Test {
 protected:
  void SetUp() override {
    write_small_case(root());
    copy_folder(small_model(), root() / "hf");
  }
  const fs::path& root() const { return directory_.path(); }

  /// Ends with 1 and says that `file` was not written; no file may grow beyond `blocks` of 512 bytes. Open
  /// MPI keeps files of its own: here small ones.
  void expect_full(int blocks, const std::string& arguments, const std::string& file) const {
    const CommandResult result =
        run_shell(root(), "export PMIX_MCA_gds=hash OMPI_MCA_btl=self; ulimit -f " + std::to_string(blocks) +
                              "; " + verne_command(1, arguments));
    SCOPED_TRACE(arguments + "\n" + result.output + result.errors);
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.errors, HasSubstr(file));
    EXPECT_THAT(result.errors, HasSubstr("the disk is full or a size limit is reached (File too large)"));
  }
  void expect_done(const std::string& arguments) const {
    const CommandResult result = verne(root(), 1, arguments);
    ASSERT_EQ(result.exit_code, 0) << arguments << "\n" << result.errors;
  }
  std::string train() const {
    return "train deck.ini --data.train=shards/train.h5 --data.validation=shards/train.h5";
  }
  void prepare_shards() const {
    expect_done("prepare deck.ini --prepare.input=train.jsonl --prepare.output=shards --prepare.split=1,0,0");
  }

 private:
  TemporaryDirectory directory_;
};

TEST_F(SizeLimit, ImportAndExport) {
  expect_full(100, "import --import.input=hf --import.output=out/model.h5", "/out/");
  EXPECT_TRUE(snapshot(root() / "out").empty());
  expect_done("import --import.input=hf --import.output=model.h5");
  expect_full(100, "export --export.checkpoint=model.h5 --export.output=out/hf", "model.safetensors");
  EXPECT_TRUE(snapshot(root() / "out").empty());
}

TEST_F(SizeLimit, Shards) {
  expect_full(20, "prepare deck.ini --prepare.input=train.jsonl --prepare.output=shards", "train.h5");
  EXPECT_TRUE(snapshot(root() / "shards").empty());
}

TEST_F(SizeLimit, Checkpoints) {
  prepare_shards();
  expect_full(300, train(), "step_00000003.h5");
  EXPECT_TRUE(snapshot(root() / "run" / "checkpoints").empty());
}

TEST_F(SizeLimit, Events) {
  prepare_shards();
  expect_full(6,
              train() +
                  " --train.max_steps=60 --train.val_interval=0 --checkpoint.interval=0 "
                  "--checkpoint.keep_best=0",
              "events.out.tfevents");
  EXPECT_TRUE(snapshot(root() / "run" / "checkpoints").empty());
}

TEST_F(SizeLimit, Logs) {
  prepare_shards();
  fs::create_directories(root() / "run" / "logs");
  write_text(root() / "run" / "logs" / "rank_00000.txt", std::string(20'000, 'x'));
  expect_full(20, train(), "rank_00000.txt");
}

TEST_F(SizeLimit, MetricsAndTheRunGoesOnWithoutTheLimit) {
  prepare_shards();
  ASSERT_EQ(verne(root(), 1, train() + " --train.stop_step=3").exit_code, 75);
  std::string metrics = read_text(root() / "run" / "metrics.csv");
  const std::size_t first_row_end = metrics.find('\n', metrics.find('\n') + 1);
  write_text(root() / "run" / "metrics.csv", metrics.insert(first_row_end, std::string(20'000, '0')));
  expect_full(20, train(), "metrics.csv");
  EXPECT_FALSE(fs::exists(root() / "run" / "checkpoints" / "step_00000004.h5"));
  expect_done(train());
  EXPECT_EQ(read_metrics(root() / "run").back().at("step"), "8");
}

}  // namespace
}  // namespace verne::testing
