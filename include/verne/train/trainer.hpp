#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "verne/base/error.hpp"
#include "verne/base/log.hpp"
#include "verne/checkpoint/checkpoint.hpp"
#include "verne/comm/mpi_session.hpp"
#include "verne/comm/watchdog.hpp"
#include "verne/optim/schedule.hpp"
#include "verne/train/event_file.hpp"
#include "verne/train/metrics_csv.hpp"
#include "verne/train/progress.hpp"
#include "verne/train/run_state.hpp"
#include "verne/train/stop_request.hpp"

namespace verne {

/// What the program gives the trainer; the same on every rank but for the rank itself.
struct TrainRequest {
  const Deck& deck;
  const MpiSession& session;
  Logging& logging;
  std::vector<std::string> command_line;
  std::string recipe;
  std::string used_inputs;  ///< the resolved deck's text
  int threads = 1;          ///< CPU threads of this rank
};

/// The verb `train`: opens model and data, trains to the last step or to a stop in good order. Collective.
ExitCode train(const TrainRequest& request);

/// What every part of a run works on. Made whole before the first step.
struct Run {
  const TrainRequest& request;
  const Deck& deck;
  const HostGroup& world;
  RunPaths paths;
  ModelSource model;
  DataFiles files;
  TrainLayout layout;
  TrainingData data;
  EngineOptions engine_options;
  EnginePlan plan;
  std::int64_t last_step = 0;
  nlohmann::ordered_json identity;

  bool first_rank() const { return world.rank() == 0; }
};

/// Saves and restores a run's checkpoints; keeps `last`, `best` and the counts of the deck.
class RunCheckpoints {
 public:
  RunCheckpoints(const Run& run, Engine& engine);

  /// The newest whole checkpoint that checkpoint.resume allows, checked to be of this run. Collective.
  static std::optional<std::filesystem::path> find(const Run& run);
  /// Restores optimizer state and weights. Collective.
  RunProgress restore(const std::filesystem::path& file);

  /// A resumable checkpoint; asynchronously where the deck says so. `before_publishing` makes durable what must not be
  /// newer than the checkpoint. Collective.
  void save(const RunProgress& progress, const std::function<void()>& before_publishing);
  /// Whether this step's value of the monitor is among the checkpoint.keep_best best; notes it if so.
  bool rank(RunProgress& progress, double value) const;
  /// A weights-only checkpoint of such a step, where no resumable one is due. Collective.
  void save_weights(const RunProgress& progress, const std::function<void()>& before_publishing);
  /// Publishes an asynchronous save once all ranks have written it, or at once where `wait` says so. Collective.
  enum class Wait { no, yes };
  void settle(Wait wait);

 private:
  CheckpointContent content(const RunProgress& progress) const;
  enum class Holds { everything, weights };
  void publish(const RunProgress& progress, Holds holds);
  /// Going back in a run of its own directory: what was saved after `progress` belongs to steps that are done anew.
  void discard_after(const RunProgress& progress) const;

  const Run& run_;
  Engine& engine_;
  CheckpointDirectory directory_;
  AsyncSaver saver_;
  std::optional<RunProgress> saving_;
  std::optional<std::int64_t> resumed_from_;
};

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
