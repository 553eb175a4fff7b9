#include "verne/comm/failure.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "run_program.hpp"

namespace verne {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::ProgramResult;
using testing::run_ranks;

constexpr double kSoonSeconds = 10;  // bounds a hang, with room for a busy machine

TEST(RunGuarded, PrintsAnErrorOfAllRanksOnce) {
  for (const int ranks : {1, 2, 4}) {
    const ProgramResult result = run_ranks(ranks, "ending_program error-everywhere");
    EXPECT_EQ(result.exit_code, 2) << result.output;
    EXPECT_EQ(result.count("error: deck.ini line 3: unknown key 'lrr'"), 1) << result.output;
    EXPECT_THAT(result.output, Not(HasSubstr("rank 0 on")));
    EXPECT_THAT(result.output, Not(HasSubstr("MPI_ABORT")));
  }
}

TEST(RunGuarded, WaitsForRanksThatMeetTheErrorLater) {
  const ProgramResult result = run_ranks(3, "ending_program error-late");
  EXPECT_EQ(result.exit_code, 2) << result.output;
  EXPECT_EQ(result.count("unknown key 'lrr'"), 1) << result.output;
}

TEST(RunGuarded, AnErrorOnOneRankEndsThoseThatWait) {
  for (const int ranks : {2, 4}) {
    const ProgramResult result = run_ranks(ranks, "ending_program error-on-one");
    EXPECT_EQ(result.exit_code, 2) << result.output;
    EXPECT_THAT(result.output, ContainsRegex("error: rank " + std::to_string(ranks - 1) +
                                             " on [^ ]+: shard 7 cannot be read"));
    EXPECT_LT(result.seconds, kSoonSeconds);
  }
}

TEST(RunGuarded, AnErrorOnOneRankBesidesOnesThatAreDone) {
  const ProgramResult result = run_ranks(4, "ending_program error-beside-done");
  EXPECT_EQ(result.exit_code, 1) << result.output;
  EXPECT_THAT(result.output, ContainsRegex("error: rank 3 on [^ ]+: late trouble"));
  EXPECT_EQ(result.count("late trouble"), 1);
}

TEST(RunGuarded, ShowsErrorsThatDifferAndEndsWithTheFirstRanksCode) {
  const ProgramResult result = run_ranks(3, "ending_program errors-differ");
  EXPECT_EQ(result.exit_code, 2) << result.output;
  EXPECT_THAT(result.output, ContainsRegex("error: rank 0 on [^ ]+: one\n"));
  EXPECT_THAT(result.output, ContainsRegex("error: rank 1 on [^ ]+ and 1 more rank: another\n"));
}

TEST(RunGuarded, AnErrorBesideAnExchangeInFlight) {
  const ProgramResult result = run_ranks(2, "ending_program error-beside-exchange");
  EXPECT_EQ(result.exit_code, 2) << result.output;
  EXPECT_THAT(result.output, ContainsRegex("error: rank 1 on [^ ]+: shard 7 cannot be read"));
  EXPECT_THAT(result.output, Not(HasSubstr("internal error")));
  EXPECT_LT(result.seconds, kSoonSeconds);
}

TEST(RunGuarded, AnExchangeThatNobodyWaitsForEndsTheRun) {
  const ProgramResult result = run_ranks(2, "ending_program drop-exchange");
  EXPECT_NE(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output,
              HasSubstr("internal error: a pending exchange was destroyed before it was waited for"));
  EXPECT_LT(result.seconds, kSoonSeconds);
}

TEST(RunGuarded, ReturnsTheBodysCode) {
  EXPECT_EQ(run_ranks(2, "ending_program requeue").exit_code, 75);
  const ProgramResult done = run_ranks(2, "ending_program done");
  EXPECT_EQ(done.exit_code, 0);
  EXPECT_EQ(done.output, "");
  EXPECT_THAT(run_ranks(2, "ending_program nonsense").output,
              HasSubstr("internal error: no such end: nonsense"));
}

}  // namespace
}  // namespace verne
