#include "verne/data/sampler.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace verne {
namespace {

using ::testing::ElementsAre;

TEST(Sampler, EveryRowOnceAnEpoch) {
  const Sampler sampler(37, 8, Shuffle::yes, 5);
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<int> seen(37);
    for (std::int64_t i = 0; i < 37; ++i) ++seen[static_cast<std::size_t>(sampler.row(epoch * 37 + i))];
    EXPECT_EQ(seen, std::vector<int>(37, 1));
  }
}

TEST(Sampler, EpochsDiffer) {
  const Sampler sampler(37, 37, Shuffle::yes, 5);
  EXPECT_NE(sampler.batch(1), sampler.batch(2));
  EXPECT_EQ(sampler.batch(2), Sampler(37, 37, Shuffle::yes, 5).batch(2));
  EXPECT_NE(sampler.batch(1), Sampler(37, 37, Shuffle::yes, 6).batch(1));
}

TEST(Sampler, WithoutShufflingRowsComeInOrderAndWrap) {
  const Sampler sampler(5, 3, Shuffle::no, 0);
  EXPECT_THAT(sampler.batch(1), ElementsAre(0, 1, 2));
  EXPECT_THAT(sampler.batch(2), ElementsAre(3, 4, 0));
  EXPECT_THAT(sampler.batch(3), ElementsAre(1, 2, 3));
}

// A batch of 2k rows is two of k: samples have their place whatever the batch.
TEST(Sampler, BatchesAreCutsOfOneSequence) {
  const Sampler wide(23, 8, Shuffle::yes, 1), narrow(23, 4, Shuffle::yes, 1);
  std::vector<std::int64_t> halves = narrow.batch(5);
  const std::vector<std::int64_t> second = narrow.batch(6);
  halves.insert(halves.end(), second.begin(), second.end());
  EXPECT_EQ(wide.batch(3), halves);
}

TEST(Sampler, StepsForEpochs) {
  const Sampler sampler(10, 4, Shuffle::no, 0);
  EXPECT_EQ(sampler.steps_for(1), 3);
  EXPECT_EQ(sampler.steps_for(2), 5);
  EXPECT_EQ(sampler.steps_for(0.3), 1);
}

}  // namespace
}  // namespace verne
