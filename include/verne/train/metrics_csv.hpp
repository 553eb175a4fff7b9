#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace verne {

/// One logged step. `step` counts finished updates from 1; row 0 is the validation before the first update.
struct MetricsRow {
  std::int64_t step = 0;
  std::optional<std::int64_t> consumed_samples;
  std::optional<std::int64_t> consumed_tokens;
  std::optional<double> loss;  ///< mean over the counted tokens of the step's batch, before its update
  std::optional<double> grad_norm;
  std::optional<double> lr;
  std::optional<double> val_loss;
  std::optional<double> step_time_s;
  std::optional<double> tokens_per_s;
  std::optional<double> tflops_per_gpu;
  std::optional<double> mfu;
  std::optional<double> peak_memory_gb;
};

/// The header line of metrics.csv, without its newline.
std::string metrics_header();
/// One line without its newline: floats with nine significant digits, an empty field where there is no value.
std::string metrics_line(const MetricsRow& row);

/// The metrics.csv of a run; only rank 0 has one.
class MetricsCsv {
 public:
  /// Opens the file, made with its header where it does not exist. Keeps the rows of steps up to `last_step`
  /// and cuts what follows, torn rows included; a negative `last_step` starts the file afresh. Throws
  /// UserError where the file has other columns, SystemError where it cannot be written.
  MetricsCsv(const std::filesystem::path& file, std::int64_t last_step);
  ~MetricsCsv();
  MetricsCsv(const MetricsCsv&) = delete;
  MetricsCsv& operator=(const MetricsCsv&) = delete;

  /// Appends a row, visible to readers at once.
  void write(const MetricsRow& row);
  /// Returns once all rows are on disk: call it before a checkpoint is published.
  void sync();

 private:
  std::filesystem::path file_;
  int descriptor_ = -1;
};

}  // namespace verne
