#pragma once
#include <cstdint>
#include <vector>

namespace verne {

/// One rank's place in a pipeline. Stage s holds chunks s, s + stages, s + 2·stages, … of the model.
struct PipelinePlace {
  int stage = 0, stages = 1;
  int chunks = 1;  ///< of each stage

  /// The model's chunk that is chunk `chunk` of this stage.
  int model_chunk(int chunk) const { return chunk * stages + stage; }
  bool first(int chunk) const { return stage == 0 && chunk == 0; }
  bool last(int chunk) const { return stage == stages - 1 && chunk == chunks - 1; }
  /// The stages that streams go to and come from in forward.
  int next() const { return (stage + 1) % stages; }
  int previous() const { return (stage + stages - 1) % stages; }
};

/// A chunk's forward or backward pass over one micro-batch, and the memory that it is given.
struct Action {
  enum class Kind : std::uint8_t { forward, backward } kind = Kind::forward;
  int chunk = 0;
  std::int64_t micro_batch = 0;
  int slot = 0;    ///< arena of what is saved between forward and backward
  int input = -1;  ///< buffer of the stream that came from the stage before; −1 where none does
  int batch = 0;   ///< buffer of the micro-batch on the device
  /// A micro-batch to be built and sent to the device meanwhile, and its buffer; −1: none.
  std::int64_t next_micro_batch = -1;
  int next_batch = -1;
};

/// What one stage does in one pass, in order, and how many buffers of each kind that takes.
struct PipelineSchedule {
  std::vector<Action> actions;
  int slots = 0, inputs = 0, batches = 0;
};

/// Forward and backward of every micro-batch: 1F1B, with several chunks a stage interleaved in groups of
/// `stages` micro-batches. Any number of micro-batches: it is the schedule of the next multiple of `stages`,
/// less what is not there. At most 2·(stages − 1) + (chunks − 1)·stages + 1 slots are in flight, stages −
/// stage with one chunk.
PipelineSchedule training_schedule(const PipelinePlace& place, std::int64_t micro_batches);
/// Forward alone, keeping nothing.
PipelineSchedule forward_schedule(const PipelinePlace& place, std::int64_t micro_batches);

}  // namespace verne
