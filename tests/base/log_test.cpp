#include "verne/base/log.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "testing.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

TEST(Logging, OffTheScreenNothingIsPrinted) {
  Logging logging({.level = LogLevel::info, .rank = 0});
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  logging.leave_screen();
  log_error("unseen");
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST(Logging, OffTheScreenFilesGoOn) {
  const testing::TemporaryDirectory folder;
  Logging logging({.level = LogLevel::info, .rank = 0});
  logging.leave_screen();
  logging.add_file(folder.path() / "log.txt");
  log_error("seen");
  std::stringstream text;
  text << std::ifstream(folder.path() / "log.txt").rdbuf();
  EXPECT_NE(text.str().find("error: seen"), std::string::npos) << text.str();
}

TEST(Logging, NoControlCharacterReachesScreenOrFile) {
  const testing::TemporaryDirectory folder;
  Logging logging({.level = LogLevel::info, .rank = 0});
  logging.add_file(folder.path() / "log.txt");
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  log_info("first {}\nsecond", "one\nerror: forged");
  write_log(LogLevel::warning, "a\x1b[2J\nb\x9b");
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "first one\\nerror: forged\nsecond\n");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "warning: a\\x1b[2J\nb\\x9b\n");
  EXPECT_THAT(
      testing::read_text(folder.path() / "log.txt"),
      ::testing::MatchesRegex(
          "[-0-9T:.]+ first one\\\\nerror: forged\nsecond\n[-0-9T:.]+ warning: a\\\\x1b.2J\nb\\\\x9b\n"));
}

TEST(Logging, AFullDiskIsSaidOnce) {
  Logging logging({.level = LogLevel::info, .rank = 0});
  logging.leave_screen();
  logging.add_file("/dev/full");
  try {
    log_info("lost");
    FAIL() << "written to a full device";
  } catch (const SystemError& error) {
    EXPECT_STREQ(error.what(),
                 "/dev/full cannot be written: the disk is full or a size limit is reached (No space left on "
                 "device)");
  }
  log_info("lost too");
}

}  // namespace
}  // namespace verne
