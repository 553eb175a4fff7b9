#include "verne/comm/watchdog.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "run_program.hpp"

namespace verne {
namespace {

using ::testing::ContainsRegex;

// Rank 1 sleeps before the second operation, with a limit of 2 s.
TEST(Watchdog, NamesTheOperationAndTheRankThatDidNotCome) {
  const testing::ProgramResult result = testing::run_ranks(3, "ending_program hang");
  EXPECT_EQ(result.exit_code, 1) << result.output;
  EXPECT_THAT(result.output,
              ContainsRegex("error: rank [02] on [^ ]+: broadcast number 2 on communicator data did not "
                            "finish within 2 s. Arrived: ranks 0, 2. Not arrived: rank 1."));
  EXPECT_LT(result.seconds, 20);
}

}  // namespace
}  // namespace verne
