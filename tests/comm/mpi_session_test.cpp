#include "verne/comm/mpi_session.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "../../src/comm/processors.hpp"
#include "run_program.hpp"

namespace verne {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using testing::ProgramResult;
using testing::run_command;
using testing::run_ranks;

const std::string kProgram = VERNE_PROGRAMS_DIR "/ending_program";

TEST(MpiSession, SaysWhoRunsWhere) {
  EXPECT_THAT(run_ranks(3, "ending_program where 4").output,
              ContainsRegex("^[^ ]+: ranks 0-2, GPUs 0-2, [0-9]+ threads? a rank.*\nnot shared\n$"));
  EXPECT_THAT(run_ranks(1, "ending_program where 1").output,
              ContainsRegex("^[^ ]+: rank 0, GPU 0, .*\nnot shared\n$"));
  EXPECT_THAT(run_ranks(2, "ending_program where none").output,
              ContainsRegex("^[^ ]+: ranks 0-1, [0-9]+ threads? a rank.*\nnot shared\n$"));
}

TEST(MpiSession, SaysWhoSharesAGpu) {
  EXPECT_THAT(run_ranks(4, "ending_program where 1").output,
              ContainsRegex("^[^ ]+: ranks 0-3 share GPU 0, [0-9]+ threads? a rank.*\nshared\n$"));
  EXPECT_THAT(run_ranks(4, "ending_program where 2").output,
              ContainsRegex("^[^ ]+: ranks 0,2 share GPU 0, ranks 1,3 share GPU 1, .*\nshared\n$"));
  EXPECT_THAT(run_ranks(3, "ending_program where 2").output,
              ContainsRegex("^[^ ]+: ranks 0,2 share GPU 0, rank 1 has GPU 1, .*\nshared\n$"));
}

// As a launcher does that shows each rank one GPU: all are number 0, and none is shared.
TEST(MpiSession, TellsGpusApartByTheirAddress) {
  EXPECT_THAT(run_ranks(3, "ending_program where each").output,
              ContainsRegex("^[^ ]+: ranks 0-2, a GPU each, .*\nnot shared\n$"));
}

TEST(MpiSession, WorksWithoutALauncher) {
  const ProgramResult result = run_command(kProgram + " where 1");
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, ContainsRegex("^[^ ]+: rank 0, GPU 0, "));
}

TEST(MpiSession, RefusesSingletons) {
  for (const char* variables : {"SLURM_NTASKS=4 SLURM_PROCID=0", "PMI_SIZE=4 PMI_RANK=2",
                                "OMPI_COMM_WORLD_SIZE=4", "SLURM_STEP_NUM_TASKS=4", "PMIX_RANK=3"}) {
    const ProgramResult result = run_command(std::string(variables) + " " + kProgram + " done");
    EXPECT_EQ(result.exit_code, 2) << variables << "\n" << result.output;
    EXPECT_THAT(result.output, HasSubstr("a launcher started 4 processes"));
    EXPECT_THAT(result.output, HasSubstr("srun --mpi=pmix"));
    EXPECT_THAT(result.output, HasSubstr("which mpirun"));
  }
}

TEST(MpiSession, AcceptsOneRankInsideAnAllocation) {
  for (const char* variables : {"SLURM_NTASKS=4", "SLURM_NTASKS=1 SLURM_PROCID=0", "PMI_SIZE=1"}) {
    const ProgramResult result = run_command(std::string(variables) + " " + kProgram + " done");
    EXPECT_EQ(result.exit_code, 0) << variables << "\n" << result.output;
  }
  const ProgramResult result = run_command(
      "SLURM_NTASKS=4 SLURM_PROCID=0 OMPI_ALLOW_RUN_AS_ROOT=1 "
      "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 " VERNE_MPIEXEC " -n 1 " +
      kProgram + " done");
  EXPECT_EQ(result.exit_code, 0) << result.output;
}

TEST(Processors, AreSharedOutAmongTheRanksThatMayUseThem) {
  const std::vector<int> all = {0, 1, 2, 3, 4, 5, 6, 7}, low = {0, 1, 2, 3}, high = {4, 5, 6, 7};
  EXPECT_EQ(threads_for_rank(all, {all, all}, std::nullopt), 4);
  EXPECT_EQ(threads_for_rank(low, {low, high}, std::nullopt), 4);
  EXPECT_EQ(threads_for_rank(all, {all, all, all}, std::nullopt), 2);
  EXPECT_EQ(threads_for_rank(low, {low, all}, std::nullopt), 2);
  EXPECT_EQ(threads_for_rank(all, {low, all}, std::nullopt), 6);
  EXPECT_EQ(threads_for_rank({0}, {{0}, {0}, {0}}, std::nullopt), 1);
  EXPECT_EQ(threads_for_rank(all, {all}, 2.5), 2);
  EXPECT_EQ(threads_for_rank(all, {all, all}, 6.0), 3);
  EXPECT_EQ(threads_for_rank(all, {all, all}, 0.5), 1);
}

TEST(Processors, ReadControlGroupLimits) {
  EXPECT_EQ(parse_quota("150000 100000"), 1.5);
  EXPECT_EQ(parse_quota("max 100000"), std::nullopt);
  EXPECT_EQ(parse_quota("-1 100000"), std::nullopt);
  EXPECT_EQ(parse_quota(""), std::nullopt);
}

}  // namespace
}  // namespace verne
