#pragma once
#include <array>
#include <cstdint>
#include <deque>

#include "verne/host/parallel_runtime.hpp"
#include "verne/ops/optimizer.hpp"

namespace verne {

/// What ranks tell each other with a step: how many of them say so.
enum class Signal : std::size_t {
  terminate,   ///< SIGTERM
  interrupt,   ///< SIGINT
  user,        ///< SIGUSR1
  time_limit,  ///< run.time_limit_s
  unsaved,     ///< a stage of a checkpoint in the background is not done yet
};
inline constexpr std::size_t kSignals = 5;
using Signals = std::array<double, kSignals>;

/// A step's results, the same on every rank.
struct StepResult {
  std::int64_t step = 0;
  double loss = 0;       ///< mean over the counted tokens of the global batch, before the update
  double grad_norm = 0;  ///< before clipping
  Signals signals{};     ///< ranks that said so when the step began
};

/// What goes to the device at a step's beginning, and what comes back at its end: through pinned memory, so
/// that neither waits for the other within the step. Results are read as late as one likes, in order.
class StepRecords {
 public:
  /// `ahead`: steps that may be on their way at once.
  StepRecords(ParallelRuntime& runtime, int ahead);

  /// The device's side of the step that was begun last: f64 [1] each, to be added to.
  const Tensor& loss_sum() const { return loss_sum_; }
  const Tensor& sum_of_squares() const { return sum_of_squares_; }
  /// f32: see StepScalar.
  const Tensor& scalars() const { return scalars_; }
  const Tensor& loss_scale() const { return loss_scale_; }

  struct Inputs {
    std::int64_t step = 0, counted_tokens = 0;
    std::array<float, kHostStepScalars> scalars{};
    Signals signals{};
  };
  /// Sends a step's inputs and clears its sums.
  void begin(const Inputs& inputs);
  /// Sums and signals over all ranks, on the compute queue. `reports_loss`: whether this rank's sum counts.
  void reduce(bool reports_loss);
  /// Behind the update: starts bringing the results back.
  void end();

  /// Steps begun and not read yet.
  std::int64_t unread() const { return std::ssize(steps_); }
  /// Whether the device has ended the step that was begun last.
  bool newest_arrived() const { return slots_[steps_.back().slot].arrived.passed(); }
  /// The oldest unread step's results; waits for the device to end that step.
  StepResult read();

 private:
  struct Slot {
    HostBuffer inputs, results;
    Event uploaded, arrived;
  };
  struct OnItsWay {
    std::size_t slot;
    std::int64_t step, counted_tokens;
  };
  ParallelRuntime& runtime_;
  Buffer inputs_memory_, sums_memory_, scalars_memory_;
  Tensor sums_, loss_sum_, sum_of_squares_, scalars_, loss_scale_;
  std::vector<Slot> slots_;
  std::deque<OnItsWay> steps_;
  std::size_t next_slot_ = 0;
};

}  // namespace verne
