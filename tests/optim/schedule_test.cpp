#include "verne/optim/schedule.hpp"

#include <gtest/gtest.h>

namespace verne {
namespace {

TEST(Schedule, WarmsUpInEqualStepsThatStopShortOfThePeak) {
  for (Schedule schedule : {Schedule::cosine, Schedule::linear, Schedule::constant}) {
    const LearningRate rate{.schedule = schedule, .peak = 10, .least = 1, .warmup_steps = 4, .steps = 12};
    EXPECT_DOUBLE_EQ(rate.at(1), 2);
    EXPECT_DOUBLE_EQ(rate.at(2), 4);
    EXPECT_DOUBLE_EQ(rate.at(4), 8);
    EXPECT_DOUBLE_EQ(rate.at(5), 10);
  }
}

TEST(Schedule, CosineFallsToTheLeast) {
  const LearningRate rate{
      .schedule = Schedule::cosine, .peak = 10, .least = 1, .warmup_steps = 4, .steps = 12};
  EXPECT_DOUBLE_EQ(rate.at(7), 1 + 9 * 0.5 * (1 + 0.70710678118654752));  // cos(π/4)
  EXPECT_DOUBLE_EQ(rate.at(9), 5.5);                                      // halfway
  EXPECT_DOUBLE_EQ(rate.at(11), 1 + 9 * 0.5 * (1 - 0.70710678118654752));
  EXPECT_DOUBLE_EQ(rate.at(13), 1);
  EXPECT_DOUBLE_EQ(rate.at(1000), 1);
}

TEST(Schedule, LinearFallsToTheLeast) {
  const LearningRate rate{
      .schedule = Schedule::linear, .peak = 10, .least = 2, .warmup_steps = 4, .steps = 12};
  EXPECT_DOUBLE_EQ(rate.at(6), 9);
  EXPECT_DOUBLE_EQ(rate.at(9), 6);
  EXPECT_DOUBLE_EQ(rate.at(12), 3);
  EXPECT_DOUBLE_EQ(rate.at(13), 2);
  EXPECT_DOUBLE_EQ(rate.at(99), 2);
}

TEST(Schedule, ConstantStays) {
  const LearningRate rate{
      .schedule = Schedule::constant, .peak = 10, .least = 2, .warmup_steps = 1, .steps = 5};
  EXPECT_DOUBLE_EQ(rate.at(1), 5);
  for (std::int64_t step : {2, 5, 6, 100}) EXPECT_DOUBLE_EQ(rate.at(step), 10);
}

TEST(Schedule, WithoutWarmUpTheFirstStepIsAtThePeak) {
  const LearningRate rate{.schedule = Schedule::cosine, .peak = 3, .warmup_steps = 0, .steps = 2};
  EXPECT_DOUBLE_EQ(rate.at(1), 3);
  EXPECT_DOUBLE_EQ(rate.at(2), 1.5);
  EXPECT_DOUBLE_EQ(rate.at(3), 0);
}

TEST(Schedule, WarmUpLongerThanTheRun) {
  const LearningRate rate{.schedule = Schedule::linear, .peak = 8, .least = 2, .warmup_steps = 7, .steps = 4};
  EXPECT_DOUBLE_EQ(rate.at(4), 4);
  EXPECT_DOUBLE_EQ(rate.at(7), 7);
  EXPECT_DOUBLE_EQ(rate.at(8), 8);
  EXPECT_DOUBLE_EQ(rate.at(9), 2);
}

}  // namespace
}  // namespace verne
