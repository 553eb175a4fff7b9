#include "verne/comm/process_grid.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "verne/base/error.hpp"

namespace verne {
namespace {

using ::testing::HasSubstr;

std::string message_of(int ranks, ParallelSizes sizes) {
  try {
    ProcessGrid grid(0, ranks, sizes);
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

// Counts through the coordinates in the documented order and compares each rank's place.
TEST(ProcessGrid, NumbersRanksInTheDocumentedOrder) {
  for (const ParallelSizes sizes : {ParallelSizes{.tensor = 2, .context = 3, .pipeline = 2},
                                    ParallelSizes{.tensor = 1, .context = 1, .pipeline = 4},
                                    ParallelSizes{.tensor = 4, .expert = 3, .expert_tensor = 2},
                                    ParallelSizes{.tensor = 2, .pipeline = 3, .expert = 4}}) {
    const int ranks = 48;
    int rank = 0;
    const ProcessGrid any(0, ranks, sizes);
    const int data = ranks / (sizes.tensor * sizes.context * sizes.pipeline);
    EXPECT_EQ(any.sizes().data, data);
    for (int p = 0; p < sizes.pipeline; ++p) {
      for (int d = 0; d < data; ++d) {
        for (int c = 0; c < sizes.context; ++c) {
          for (int t = 0; t < sizes.tensor; ++t, ++rank) {
            const ProcessGrid grid(rank, ranks, sizes);
            EXPECT_EQ(std::vector({grid.tensor(), grid.context(), grid.data(), grid.pipeline()}),
                      std::vector({t, c, d, p}));
          }
        }
      }
    }
    EXPECT_EQ(rank, ranks);
    rank = 0;
    for (int p = 0; p < sizes.pipeline; ++p) {
      for (int ed = 0; ed < any.expert_data_size(); ++ed) {
        for (int e = 0; e < sizes.expert; ++e) {
          for (int et = 0; et < sizes.expert_tensor; ++et, ++rank) {
            const ProcessGrid grid(rank, ranks, sizes);
            EXPECT_EQ(std::vector({grid.expert_tensor(), grid.expert(), grid.expert_data(), grid.pipeline()}),
                      std::vector({et, e, ed, p}));
          }
        }
      }
    }
    EXPECT_EQ(rank, ranks);
  }
}

// Two ranks have equal colours exactly where all coordinates but those of the group's axis are equal.
TEST(ProcessGrid, ColoursJoinTheRanksThatDifferAlongOneAxis) {
  const ParallelSizes sizes{.tensor = 2, .context = 2, .pipeline = 2};
  const int ranks = 24;
  for (int a = 0; a < ranks; ++a) {
    for (int b = 0; b < ranks; ++b) {
      const ProcessGrid x(a, ranks, sizes), y(b, ranks, sizes);
      const bool t = x.tensor() == y.tensor(), c = x.context() == y.context();
      const bool d = x.data() == y.data(), p = x.pipeline() == y.pipeline();
      EXPECT_EQ(x.tensor_colour() == y.tensor_colour(), c && d && p) << a << " " << b;
      EXPECT_EQ(x.data_colour() == y.data_colour(), t && c && p) << a << " " << b;
      EXPECT_EQ(x.context_colour() == y.context_colour(), t && d && p) << a << " " << b;
      EXPECT_EQ(x.pipeline_colour() == y.pipeline_colour(), t && c && d) << a << " " << b;
      EXPECT_EQ(x.data_context_colour() == y.data_context_colour(), t && p) << a << " " << b;
    }
  }
}

/// The ranks with this rank's colour, ascending.
template <class Colour>
std::vector<int> group_of(int rank, int ranks, ParallelSizes sizes, Colour&& colour) {
  std::vector<int> group;
  for (int other = 0; other < ranks; ++other) {
    if (colour(ProcessGrid(other, ranks, sizes)) == colour(ProcessGrid(rank, ranks, sizes)))
      group.push_back(other);
  }
  return group;
}

// In a group ordered by world rank, a rank's place is its coordinate.
TEST(ProcessGrid, RanksOfAGroupAreCoordinates) {
  const ParallelSizes sizes{.tensor = 2, .context = 3, .pipeline = 2};
  const int ranks = 48;
  for (int rank = 0; rank < ranks; ++rank) {
    const ProcessGrid grid(rank, ranks, sizes);
    const auto place = [&](auto&& colour) {
      const std::vector<int> group = group_of(rank, ranks, sizes, colour);
      return static_cast<int>(std::find(group.begin(), group.end(), rank) - group.begin());
    };
    EXPECT_EQ(place([](const ProcessGrid& g) { return g.tensor_colour(); }), grid.tensor());
    EXPECT_EQ(place([](const ProcessGrid& g) { return g.context_colour(); }), grid.context());
    EXPECT_EQ(place([](const ProcessGrid& g) { return g.data_colour(); }), grid.data());
    EXPECT_EQ(place([](const ProcessGrid& g) { return g.pipeline_colour(); }), grid.stage());
    EXPECT_EQ(place([](const ProcessGrid& g) { return g.data_context_colour(); }), grid.data_context_rank());
    EXPECT_EQ(grid.data_context_rank(), grid.context() + 3 * grid.data());
    EXPECT_EQ(grid.data_context_size(), 12);
  }
}

TEST(ProcessGrid, TiesTheFirstStageToTheLast) {
  for (const int stages : {1, 2, 4}) {
    const ParallelSizes sizes{.tensor = 2, .context = 2, .pipeline = stages};
    const int ranks = 8 * stages;
    for (int rank = 0; rank < ranks; ++rank) {
      const ProcessGrid grid(rank, ranks, sizes);
      EXPECT_EQ(grid.stages(), stages);
      EXPECT_EQ(grid.is_first_stage(), rank < 8);
      EXPECT_EQ(grid.is_last_stage(), rank >= ranks - 8);
      EXPECT_GE(grid.embedding_colour(), 0);
      std::vector<int> expected = {rank};
      const int first = rank % 8, last = first + 8 * (stages - 1);
      if (stages > 1 && (rank == first || rank == last)) expected = {first, last};
      EXPECT_EQ(group_of(rank, ranks, sizes, [](const ProcessGrid& g) { return g.embedding_colour(); }),
                expected);
    }
  }
}

TEST(ProcessGrid, NamesTheNearestLayoutThatFits) {
  EXPECT_THAT(message_of(4, {.tensor = 3}), HasSubstr("multiple of 3 ranks, but 4 were started"));
  EXPECT_THAT(message_of(4, {.tensor = 3}), HasSubstr("fits 4: tensor 4"));
  EXPECT_THAT(message_of(2, {.tensor = 4}), HasSubstr("fits 2: tensor 2"));
  EXPECT_THAT(message_of(1, {.tensor = 2}), HasSubstr("but 1 was started"));
  EXPECT_THAT(message_of(1, {.tensor = 2}), HasSubstr("fits 1: one rank"));
  EXPECT_THAT(message_of(6, {.tensor = 4}), HasSubstr("fits 6: tensor 3 × data 2"));
  EXPECT_THAT(message_of(8, {.tensor = 2, .expert = 3}), HasSubstr("does not divide the 8 ranks"));
  EXPECT_THAT(message_of(8, {.tensor = 2, .expert = 3}), HasSubstr("tensor 2 × data 4, expert 4"));
  EXPECT_THAT(message_of(4, {.tensor = 0}), HasSubstr("parallel.tensor is 0; it must be at least 1"));
  EXPECT_THAT(message_of(4, {.pipeline = -2}), HasSubstr("parallel.pipeline is -2"));
  EXPECT_THAT(message_of(4, {.tensor = 2147483647, .context = 2147483647, .pipeline = 2147483647}),
              HasSubstr("fits 4: pipeline 4"));
}

TEST(ProcessGrid, DescribesItself) {
  EXPECT_EQ(ProcessGrid(0, 8, {.tensor = 2}).text(), "tensor 2 × data 4");
  EXPECT_EQ(ProcessGrid(0, 1, {}).text(), "one rank");
  EXPECT_EQ(ProcessGrid(0, 4, {.expert = 2}).text(), "data 4, expert 2");
}

}  // namespace
}  // namespace verne
