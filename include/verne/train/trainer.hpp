#pragma once
#include <chrono>
#include <deque>
#include <optional>
#include <string>

#include "verne/base/error.hpp"
#include "verne/nn/model_tensors.hpp"
#include "verne/optim/schedule.hpp"
#include "verne/train/monitors.hpp"
#include "verne/train/run_checkpoints.hpp"
#include "verne/train/stop_request.hpp"

namespace verne {

/// The loop. Steps are enqueued one ahead of what is known: a step's results are read once the next one is on
/// its way, and at once only where something hangs on them: a validation, a checkpoint, the end.
class Trainer {
 public:
  Trainer(const Run& run, Engine& engine);
  ExitCode run();

 private:
  using Clock = std::chrono::steady_clock;

  void resume_or_start();
  void warm_up();
  void validate_at_start();
  void enqueue(std::int64_t step);
  /// Reads the oldest step's results and takes them to account. Throws SystemError where they are not finite.
  void account();
  /// Whether step `step` ends with something that needs its results.
  bool settles(std::int64_t step) const;
  bool validates(std::int64_t step) const;
  bool saves(std::int64_t step) const;
  /// The newest step is accounted for: validates, saves. Whether the run stops here, and why.
  std::optional<std::string> settle();

  std::optional<double> validate();
  enum class Standing { ordinary, among_best };
  Standing judge(double value);
  bool early_stop() const;
  void log(std::optional<double> val_loss);
  void sync_monitors();

  const Run& run_;
  Engine& engine_;
  RunCheckpoints checkpoints_;
  LearningRate learning_rate_;
  Monitor monitor_;
  TrainingFlops flops_;
  std::optional<double> peak_tflops_;
  RunProgress progress_;
  std::optional<Monitors> monitors_;  ///< rank 0
  StopRequest stop_request_;
  std::optional<std::string> stop_reason_;

  struct Enqueued {
    BatchCounts counts;
    std::optional<RunCheckpoints::Saving> saving;  ///< what the step's signals speak of
    std::optional<Clock::time_point> ended{};      ///< where it had when the host came back from giving it
  };
  std::deque<Enqueued> enqueued_;
  struct Accounted {
    StepResult result;
    BatchCounts counts;
    double seconds = 0;
  };
  std::optional<Accounted> newest_;  ///< accounted for, not logged
  Clock::time_point mark_;           ///< the end of the step before; not set: since a pause
  bool paused_ = true;
};

}  // namespace verne
