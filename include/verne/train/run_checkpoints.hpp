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

  /// How far an asynchronous save came on all ranks: of which step it is, and how many of its stages all have
  /// done. The next stage begins when all agree that no rank is behind; a step's signals carry that.
  struct Saving {
    std::int64_t step = 0;
    int stages = 0;
    bool operator==(const Saving&) const = default;
  };
  std::optional<Saving> saving() const {
    return saving_ ? std::optional(Saving{saving_->step, stages_}) : std::nullopt;
  }
  /// Whether this rank has not done the stage that the others may have.
  bool behind() const { return saving_ && saver_.stage() <= stages_; }
  /// No rank was behind: begins the next stage, or publishes. Collective.
  void advance();
  /// Waits for an asynchronous save, where there is one, and publishes it. Collective.
  void settle();

 private:
  CheckpointContent content(const RunProgress& progress, CheckpointKind kind) const;
  void publish(const RunProgress& progress, CheckpointKind kind);
  /// Going back in a run of its own directory: what was saved after `progress` belongs to steps that are done
  /// anew.
  void discard_after(const RunProgress& progress);

  const Run& run_;
  Engine& engine_;
  CheckpointDirectory directory_;
  CheckpointSaver saver_;
  std::optional<RunProgress> saving_;
  int stages_ = 0;  ///< of saving_ that all ranks have done
  std::optional<std::int64_t> resumed_from_;
};

}  // namespace verne
