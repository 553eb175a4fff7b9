#include "verne/checkpoint/directory.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "layouts.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::save_alone;

TEST(CheckpointDirectory, Names) {
  EXPECT_EQ(checkpoint_name(100), "step_00000100.h5");
  EXPECT_EQ(checkpoint_name(1'234'567'890), "step_1234567890.h5");
  EXPECT_EQ(step_of_checkpoint_name("step_00000100.h5"), 100);
  EXPECT_EQ(step_of_checkpoint_name("step_1234567890.h5"), 1'234'567'890);
  for (const char* other :
       {"step_100.h5", "step_000000100.h5", "last", "step_0000010x.h5", "step_-0000100.h5", "step_.h5"}) {
    EXPECT_FALSE(step_of_checkpoint_name(other)) << other;
  }
}

/// A run with resumable checkpoints 5, 15 and 20 and weights of 8, 10 and 12.
class RunDirectory : public ::testing::Test {
 protected:
  RunDirectory() : run(folder.path() / "run"), directory(run / "checkpoints") {
    directory.prepare();
    for (const std::int64_t step : {5, 15, 20})
      save_alone(directory.file(step), step, CheckpointKind::resumable);
    for (const std::int64_t step : {8, 10, 12})
      save_alone(directory.file(step), step, CheckpointKind::weights_only);
    directory.set_last(20);
    directory.set_best(10);
  }
  std::vector<std::int64_t> steps() {
    std::vector<std::int64_t> found;
    for (const auto& entry : directory.whole()) found.push_back(entry.step);
    return found;
  }

  testing::TemporaryDirectory folder;
  fs::path run;
  CheckpointDirectory directory;
};

TEST_F(RunDirectory, FindsWholeOnes) {
  EXPECT_THAT(steps(), ElementsAre(5, 8, 10, 12, 15, 20));
  EXPECT_EQ(directory.newest_resumable()->step, 20);
  fs::resize_file(directory.file(20), 1000);
  EXPECT_EQ(directory.newest_resumable()->step, 15);
  EXPECT_EQ(CheckpointDirectory(directory.path()).whole().back().step, 15);
  EXPECT_EQ(directory.best(), 10);
  EXPECT_EQ(fs::read_symlink(directory.path() / "best"), "step_00000010.h5");
  EXPECT_THROW(directory.set_best(99), InternalError);
  EXPECT_EQ(directory.best(), 10);
}

TEST_F(RunDirectory, PrunesBeyondTheCounts) {
  EXPECT_THAT(directory.prune({.keep = 0, .keep_best = 3, .ranking = {10, 8, 12}, .resumed_from = {}}),
              ElementsAre());
  EXPECT_THAT(directory.prune({.keep = 2, .keep_best = 2, .ranking = {10, 8, 12}, .resumed_from = {}}),
              ElementsAre(5, 12));
  EXPECT_THAT(steps(), ElementsAre(8, 10, 15, 20));
}

// A run looks into none of the files that it saved itself.
TEST_F(RunDirectory, WhatWasNotedIsNotOpened) {
  const std::int64_t saved = 30;
  testing::write_text(directory.file(saved), "not even HDF5");
  EXPECT_THAT(steps(), ElementsAre(5, 8, 10, 12, 15, 20));
  directory.note(saved, CheckpointKind::resumable);
  EXPECT_THAT(steps(), ElementsAre(5, 8, 10, 12, 15, 20, saved));
  EXPECT_THAT(directory.prune({.keep = 2, .keep_best = 3, .ranking = {10, 8, 12}, .resumed_from = {}}),
              ElementsAre(5, 15));
  fs::remove(directory.file(saved));
  EXPECT_THAT(steps(), ElementsAre(8, 10, 12, 20));
}

TEST_F(RunDirectory, NeverPrunesLastBestOrTheOneResumedFrom) {
  directory.set_last(15);
  EXPECT_THAT(directory.prune({.keep = 1, .keep_best = 0, .ranking = {8, 10, 12}, .resumed_from = 5}),
              ElementsAre(8, 12));
  EXPECT_THAT(steps(), ElementsAre(5, 10, 15, 20));
}

TEST_F(RunDirectory, PreparingRemovesWhatKilledSavesLeft) {
  testing::write_text(directory.path() / ".step_00000025.h5.123.partial", "half");
  testing::write_text(directory.path() / "notes.txt", "mine");
  directory.prepare();
  EXPECT_FALSE(fs::exists(directory.path() / ".step_00000025.h5.123.partial"));
  EXPECT_TRUE(fs::exists(directory.path() / "notes.txt"));
  EXPECT_EQ(directory.last(), 20);
}

TEST_F(RunDirectory, ResolvesWhatUsersName) {
  EXPECT_EQ(resolve_checkpoint(run.string() + "@best").file, directory.file(10));
  EXPECT_EQ(resolve_checkpoint(run.string() + "@last").file, directory.file(20));
  EXPECT_EQ(resolve_checkpoint(run.string() + "@15").file, directory.file(15));
  EXPECT_EQ(resolve_checkpoint(directory.file(5).string()).file, directory.file(5));
  EXPECT_EQ(resolve_checkpoint(run.string()).file, directory.file(10));
  EXPECT_THAT(resolve_checkpoint(run.string()).chosen, HasSubstr("best of"));
  fs::remove(directory.path() / "best");
  EXPECT_EQ(resolve_checkpoint(run.string()).file, directory.file(20));
  EXPECT_THAT(resolve_checkpoint(run.string()).chosen, HasSubstr("last of"));
  try {
    resolve_checkpoint(run.string() + "@7");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("it has 5, 8, 10, 12, 15, 20, last"));
  }
  EXPECT_THROW(resolve_checkpoint((folder.path() / "none").string()), UserError);
  EXPECT_TRUE(names_checkpoint(run.string() + "@best"));
  EXPECT_TRUE(names_checkpoint(run.string()));
  EXPECT_FALSE(names_checkpoint(folder.path().string()));
  EXPECT_FALSE(names_checkpoint("Qwen/Qwen3-0.6B"));
}

}  // namespace
}  // namespace verne
