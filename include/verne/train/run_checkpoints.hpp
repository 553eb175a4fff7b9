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
  /// Whether an asynchronous save of this rank is not written yet: what a step's signals say.
  bool unsaved() const { return saving_ && !saver_.written(); }
  /// The step of an asynchronous save that is not published.
  std::optional<std::int64_t> saving() const { return saving_ ? std::optional(saving_->step) : std::nullopt; }
  /// Waits for an asynchronous save, where there is one, and publishes it. Collective.
  void settle();

 private:
  CheckpointContent content(const RunProgress& progress) const;
  enum class Holds { everything, weights };
  void publish(const RunProgress& progress, Holds holds);
  /// Going back in a run of its own directory: what was saved after `progress` belongs to steps that are done
  /// anew.
  void discard_after(const RunProgress& progress) const;

  const Run& run_;
  Engine& engine_;
  CheckpointDirectory directory_;
  AsyncSaver saver_;
  std::optional<RunProgress> saving_;
  std::optional<std::int64_t> resumed_from_;
};

}  // namespace verne
