#pragma once
#include <functional>
#include <optional>

#include "verne/checkpoint/checkpoint.hpp"
#include "verne/checkpoint/directory.hpp"
#include "verne/train/run.hpp"

namespace verne {

/// Saves and restores a run's checkpoints; keeps `last`, `best` and the counts of the deck.
class RunCheckpoints {
 public:
  RunCheckpoints(const Run& run, Engine& engine);

  /// The newest whole checkpoint that checkpoint.resume allows, checked to be of this run. Collective.
  static std::optional<std::filesystem::path> find(const Run& run);
  /// Restores optimizer state and weights. Collective.
  RunProgress restore(const std::filesystem::path& file);

  /// A resumable checkpoint; asynchronously where the deck says so. `before_publishing` makes durable what
  /// must not be newer than the checkpoint. Collective.
  void save(const RunProgress& progress, const std::function<void()>& before_publishing);
  /// Whether this step's value of the monitor is among the checkpoint.keep_best best; notes it if so.
  bool rank(RunProgress& progress, double value) const;
  /// A weights-only checkpoint of such a step, where no resumable one is due. Collective.
  void save_weights(const RunProgress& progress, const std::function<void()>& before_publishing);
  /// Publishes an asynchronous save once all ranks have written it, or at once where `wait` says so.
  /// Collective.
  enum class Wait { no, yes };
  void settle(Wait wait);

 private:
  CheckpointContent content(const RunProgress& progress) const;
  /// The model's logical tensors.
  std::vector<TensorInfo> tensors(DType dtype) const;
  void publish(const RunProgress& progress, CheckpointKind kind);
  /// Going back in a run of its own directory: what was saved after `progress` belongs to steps that are done
  /// anew.
  void discard_after(const RunProgress& progress);

  const Run& run_;
  Engine& engine_;
  CheckpointDirectory directory_;
  CheckpointSaver saver_;
  std::optional<RunProgress> saving_;
  std::optional<std::int64_t> resumed_from_;
};

}  // namespace verne
