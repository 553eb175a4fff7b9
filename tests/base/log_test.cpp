#include "verne/base/log.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "testing.hpp"

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

}  // namespace
}  // namespace verne
