#include <gtest/gtest.h>
#include <mpi.h>

#include "verne/comm/host_group.hpp"
#include "verne/comm/process_grid.hpp"

namespace verne {
namespace {

// What the grid says of a rank's place in a group, and what MPI makes of the colours.
TEST(ProcessGrid, GroupsOfTheWorldAreAsItSays) {
  const HostGroup world(MPI_COMM_WORLD);
  for (const ParallelSizes sizes : {ParallelSizes{.tensor = 2}, ParallelSizes{.context = 2},
                                    ParallelSizes{.pipeline = 2}, ParallelSizes{.context = 2, .pipeline = 2},
                                    ParallelSizes{.tensor = 2, .context = 2}, ParallelSizes{}}) {
    if (world.size() % (sizes.tensor * sizes.context * sizes.pipeline) != 0) continue;
    const ProcessGrid grid(world.rank(), world.size(), sizes);
    const auto expect_place = [&](int colour, int rank, int size) {
      const HostGroup group = world.split(colour, world.rank());
      EXPECT_EQ(group.rank(), rank) << grid.text();
      EXPECT_EQ(group.size(), size) << grid.text();
    };
    expect_place(grid.tensor_colour(), grid.tensor(), sizes.tensor);
    expect_place(grid.context_colour(), grid.context(), sizes.context);
    expect_place(grid.data_colour(), grid.data(), grid.sizes().data);
    expect_place(grid.pipeline_colour(), grid.stage(), grid.stages());
    expect_place(grid.data_context_colour(), grid.data_context_rank(), grid.data_context_size());
    const bool tied = grid.stages() > 1 && (grid.is_first_stage() || grid.is_last_stage());
    expect_place(grid.embedding_colour(), tied && grid.is_last_stage() ? 1 : 0, tied ? 2 : 1);
  }
}

}  // namespace
}  // namespace verne
