#include "verne/train/run_directory.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "testing.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

using testing::read_text;
using testing::TemporaryDirectory;

TEST(RunPaths, Names) {
  const RunPaths paths("runs/a");
  EXPECT_EQ(paths.rank_log(3), "runs/a/logs/rank_00003.txt");
  EXPECT_EQ(paths.checkpoint(100), "runs/a/checkpoints/step_00000100.h5");
}

TEST(RunLock, KeepsASecondRunOut) {
  const TemporaryDirectory directory;
  const auto run = directory.path() / "deep" / "run";
  {
    const RunLock lock(run);
    try {
      const RunLock second(run, 0.2);
      FAIL() << "two locks on one directory";
    } catch (const UserError& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr("is in use by process " + std::to_string(::getpid())));
    }
  }
  const RunLock after(run, 0);
}

TEST(RunLock, DiesWithItsProcessAndTheNextOneWaits) {
  const TemporaryDirectory directory;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const RunLock lock(directory.path());
    const char byte = 1;
    if (::write(ready[1], &byte, 1) != 1) ::_exit(1);
    ::pause();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_THROW(RunLock(directory.path(), 0), UserError);
  std::thread killer([child] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    ::kill(child, SIGKILL);
  });
  const RunLock lock(directory.path(), 10);
  killer.join();
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
}

TEST(PublishText, ReplacesWholeFilesOnly) {
  const TemporaryDirectory directory;
  const auto file = directory.path() / "used_inputs.ini";
  publish_text(file, "old");
  publish_text(file, "new\n");
  EXPECT_EQ(read_text(file), "new\n");
  EXPECT_THROW(publish_text(directory.path() / "absent" / "file", "x"), SystemError);
  std::filesystem::create_directory(directory.path() / "taken");
  EXPECT_THROW(publish_text(directory.path() / "taken", "x"), SystemError);
  EXPECT_FALSE(std::filesystem::exists(directory.path() / "taken.partial"));
}

}  // namespace
}  // namespace verne
