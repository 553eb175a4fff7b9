#pragma once
#include <vector>

#include "verne/host/parallel_runtime.hpp"

namespace verne {

/// What one chunk run takes from the stage before it and gives to the one behind it: tensors of one shape;
/// empty where it takes or gives nothing.
struct Hop {
  Tensor receives, sends;
};

/// Streams on their way through the stages in one direction: after each run one grouped exchange sends its
/// result and receives the next run's input, beside the computation.
///   Exchange i carries the result of run i − 1 and the input of run i. Run i waits for exchange i where it
///   has an input, and for exchange i − 1 always: the tensor that run i − 2 sent is then free.
class PipelineLink {
 public:
  enum class Direction { down, up };  ///< to the next stage (streams), to the previous one (gradients)
  PipelineLink(ParallelRuntime& runtime, Direction direction);

  /// A pass of runs in this order; posts the first receive.
  void begin(std::vector<Hop> hops);
  /// In front of run i: its input is usable on the compute queue, and what it will send may be overwritten.
  void arrive();
  /// Run i is enqueued on the compute queue: sends its result and posts the next receive.
  void depart();
  /// After the last run: the compute queue waits for what is still on its way.
  void finish();

 private:
  void exchange();

  Communicator& ranks_;
  Queue& queue_;
  Queue& compute_;
  int to_ = 0, from_ = 0;
  std::vector<Hop> hops_;
  std::size_t next_ = 0;     ///< the run that comes next
  Pending current_, older_;  ///< the exchanges with that run's input, and the one before
};

}  // namespace verne
