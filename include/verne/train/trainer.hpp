#pragma once
#include <optional>
#include <string>

#include "verne/base/error.hpp"
#include "verne/optim/schedule.hpp"
#include "verne/train/event_file.hpp"
#include "verne/train/metrics_csv.hpp"
#include "verne/train/progress.hpp"
#include "verne/train/run_checkpoints.hpp"
#include "verne/train/stop_request.hpp"

namespace verne {

/// The loop.
class Trainer {
 public:
  Trainer(const Run& run, Engine& engine);
  ExitCode run();

 private:
  void resume_or_start();
  void open_monitors();
  /// Whether the step is among the best.
  enum class Standing { ordinary, among_best };
  Standing step(std::int64_t step);
  std::optional<double> validate();
  void log_step(std::int64_t step, const StepResult& result, double seconds, std::optional<double> val_loss);
  Standing judge(double value);
  bool should_validate(std::int64_t step) const;
  bool early_stop() const;
  std::optional<std::string> stop_reason(std::int64_t step);
  void stop_if_not_finite(std::int64_t step, const StepResult& result);

  const Run& run_;
  Engine& engine_;
  RunCheckpoints checkpoints_;
  LearningRate learning_rate_;
  Monitor monitor_;
  RunProgress progress_;
  std::optional<MetricsCsv> metrics_;  ///< rank 0
  std::optional<EventFile> events_;    ///< rank 0
  std::optional<Progress> display_;
  StopRequest stop_request_;
};

}  // namespace verne
