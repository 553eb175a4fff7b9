#include "verne/app/program.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "verne/app/help.hpp"

namespace verne {
namespace {

using ::testing::HasSubstr;

TEST(Program, HelpVersionAndReferenceGoToStandardOutput) {
  const std::pair<std::vector<std::string>, std::string> requests[] = {
      {{"verne", "--help"}, program_help()},
      {{"verne", "train", "--help", "--no.such=key"}, verb_help(Verb::train)},
      {{"verne", "--version"}, version_text()},
      {{"verne", "--deck-reference"}, deck_reference()},
  };
  for (const auto& [command_line, text] : requests) {
    ::testing::internal::CaptureStdout();
    EXPECT_EQ(run_program(command_line), ExitCode::done);
    EXPECT_EQ(::testing::internal::GetCapturedStdout(), text);
  }
}

TEST(Program, BadInputEndsWithTwoAndAMessageOnStandardError) {
  const std::pair<std::vector<std::string>, std::string> mistakes[] = {
      {{"verne"}, "verne needs a verb"},
      {{"verne", "evaluate"}, "error: unknown verb evaluate."},
      {{"verne", "train", "--trainer.max_epochs=3"}, "Write train.epochs ("},
  };
  for (const auto& [command_line, text] : mistakes) {
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(run_program(command_line), ExitCode::user_error);
    EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr(text));
  }
}

}  // namespace
}  // namespace verne
