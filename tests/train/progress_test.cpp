#include "verne/train/progress.hpp"

#include <gtest/gtest.h>

namespace verne {
namespace {

using std::chrono::seconds;

TEST(Progress, Duration) {
  EXPECT_EQ(format_duration(0.4), "0:00:00");
  EXPECT_EQ(format_duration(3723), "1:02:03");
  EXPECT_EQ(format_duration(2 * 86400 + 3723), "2 d 01:02:03");
  EXPECT_EQ(format_duration(-1), "0:00:00");
}

TEST(Progress, TimeLeftLeavesTheWarmUpOut) {
  const Progress::Clock::time_point start{};
  Progress progress(11, 20, start);
  MetricsRow row;
  row.step = 11;
  row.loss = 2.5;
  row.tokens_per_s = 1234.4;
  EXPECT_EQ(progress.line(row, start + seconds(100)), "step 11/20  loss 2.5000  1234 tokens/s  0:15:00 left");
  row.step = 13;
  EXPECT_EQ(progress.line(row, start + seconds(106)), "step 13/20  loss 2.5000  1234 tokens/s  0:00:21 left");
  row.step = 20;
  EXPECT_EQ(progress.line(row, start + seconds(130)), "step 20/20  loss 2.5000  1234 tokens/s  0:00:00 left");
}

TEST(Progress, ValidationBeforeTheFirstStep) {
  Progress progress(1, 20);
  MetricsRow row;
  row.val_loss = 3.25;
  EXPECT_EQ(progress.line(row), "step 0/20  val_loss 3.2500");
}

}  // namespace
}  // namespace verne
