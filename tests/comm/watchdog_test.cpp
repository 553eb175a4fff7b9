#include "verne/comm/watchdog.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "run_program.hpp"

namespace verne {
namespace {

using ::testing::ContainsRegex;

/// Runs hanging_program, whose limit is 2 s, and expects a report.
void expect_report(const std::string& how, const std::string& report) {
  const testing::ProgramResult result = testing::run_ranks(3, "hanging_program " + how);
  EXPECT_EQ(result.exit_code, 1) << result.output;
  EXPECT_THAT(result.output, ContainsRegex(report));
  EXPECT_LT(result.seconds, 20);
}

TEST(Watchdog, NamesTheOperationAndTheRankThatDidNotCome) {
  expect_report(
      "collective",
      "error: rank [02] on [^ ]+: broadcast number 2 on communicator data did not finish within 2 s. "
      "Arrived: ranks 0, 2. Not arrived: rank 1.");
}

TEST(Watchdog, NamesThePeersOfAnExchange) {
  expect_report(
      "exchange",
      "error: rank 0 on [^ ]+: exchange number 2 on communicator data .to rank 2, from rank 1. did not "
      "finish within 2 s.\n");
}

TEST(Watchdog, SeesAnExchangeThatOthersPassBy) {
  expect_report(
      "beside-exchanges",
      "error: rank 0 on [^ ]+: exchange number 1 on communicator data .from rank 1. did not finish");
}

// The first queue's operations are not counted.
TEST(Watchdog, CountsTheOperationsOfEachQueueApart) {
  expect_report("second-queue",
                "broadcast number 1 on communicator data, queue 2 did not finish within 2 s. "
                "Arrived: ranks 0, 2. Not arrived: rank 1.");
}

TEST(Watchdog, SeesHostCollectivesOfGroupsThatWereSplit) {
  expect_report("barrier",
                "error: rank [02] on [^ ]+: barrier number 2 on the host group of ranks 0-2 "
                ".called at comm/hanging_program.cpp:[0-9]+. did not finish within 2 s. "
                "Arrived: ranks 0, 2. Not arrived: rank 1.");
}

TEST(Watchdog, NamesThePlaceOfAnAgreement) {
  expect_report(
      "agreement",
      "sum number [0-9]+ on the host group of ranks 0-2 .called at comm/hanging_program.cpp:[0-9]+. "
      "did not finish within 2 s. Arrived: ranks 0, 2. Not arrived: rank 1.");
}

TEST(Watchdog, SeesThatARankCameWithAnotherCall) {
  expect_report("different-calls",
                "error: rank [02] on [^ ]+: barrier number [0-9]+ on the host group of ranks 0-2 .*"
                "Arrived: ranks 0, 2. Arrived with another operation, broadcast_text: rank 1.");
}

TEST(Watchdog, CountsTheCollectivesOfOtherLibraries) {
  expect_report("another-library",
                "ncclCommInitRankConfig number [0-9]+ on the host group of ranks 0-2 .*"
                "Arrived: ranks 0, 2. Not arrived: rank 1.");
}

TEST(Watchdog, ReportsAFaultAtOnce) {
  expect_report("fault", "error: rank 1 on [^ ]+: communicator data: the network is down\n");
}

}  // namespace
}  // namespace verne
