#include "verne/train/metrics_csv.hpp"

#include <gtest/gtest.h>

#include "testing.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

using testing::read_text;
using testing::TemporaryDirectory;
using testing::write_text;

constexpr const char* kHeader =
    "step,consumed_samples,consumed_tokens,loss,grad_norm,lr,val_loss,step_time_s,tokens_per_s,tflops_per_"
    "gpu,mfu,"
    "peak_memory_gb\n";

MetricsRow row(std::int64_t step) {
  MetricsRow result;
  result.step = step;
  result.consumed_samples = step * 8;
  result.loss = 2.0 / 3.0;
  result.lr = 5e-6;
  return result;
}

TEST(MetricsCsv, WritesNineDigitsAndEmptyFields) {
  EXPECT_EQ(metrics_line(row(3)), "3,24,,0.666666667,,5e-06,,,,,,");
  MetricsRow start;
  start.val_loss = 11.9312345678;
  EXPECT_EQ(metrics_line(start), "0,,,,,,11.9312346,,,,,");
}

TEST(MetricsCsv, CutsLaterAndTornRowsOnResume) {
  const TemporaryDirectory directory;
  const auto file = directory.path() / "metrics.csv";
  {
    MetricsCsv csv(file, -1);
    for (int step = 1; step <= 4; ++step) csv.write(row(step));
    csv.sync();
  }
  const std::string whole = read_text(file);
  EXPECT_EQ(whole.substr(0, std::string(kHeader).size()), kHeader);
  write_text(file, whole.substr(0, whole.size() - 5));  // row 4 is torn
  {
    MetricsCsv csv(file, 10);
    csv.write(row(4));
  }
  EXPECT_EQ(read_text(file), whole);
  {
    MetricsCsv csv(file, 2);
    csv.write(row(3));
    csv.write(row(4));
  }
  EXPECT_EQ(read_text(file), whole);
  { MetricsCsv csv(file, -1); }
  EXPECT_EQ(read_text(file), kHeader);
}

TEST(MetricsCsv, TornHeaderStartsAfresh) {
  const TemporaryDirectory directory;
  const auto file = directory.path() / "metrics.csv";
  write_text(file, "step,consu");
  { MetricsCsv csv(file, 5); }
  EXPECT_EQ(read_text(file), kHeader);
}

TEST(MetricsCsv, RefusesOtherColumns) {
  const TemporaryDirectory directory;
  const auto file = directory.path() / "metrics.csv";
  write_text(file, "epoch,loss\n1,2\n");
  EXPECT_THROW(MetricsCsv(file, 5), UserError);
  EXPECT_EQ(read_text(file), "epoch,loss\n1,2\n");
}

}  // namespace
}  // namespace verne
