#include "verne/host/pipeline_link.hpp"

#include <utility>

namespace verne {

PipelineLink::PipelineLink(ParallelRuntime& runtime, Direction direction)
    : ranks_(direction == Direction::down ? runtime.down() : runtime.up()),
      queue_(runtime.queue(direction == Direction::down ? ParallelRuntime::Lane::down
                                                        : ParallelRuntime::Lane::up)),
      compute_(runtime.compute()) {
  const PipelinePlace place = runtime.layout().pipeline();
  to_ = direction == Direction::down ? place.next() : place.previous();
  from_ = direction == Direction::down ? place.previous() : place.next();
}

void PipelineLink::begin(std::vector<Hop> hops) {
  hops_ = std::move(hops);
  next_ = 0;
  exchange();
}

void PipelineLink::exchange() {
  std::vector<Communicator::Message> sends, receives;
  if (next_ > 0 && hops_[next_ - 1].sends) sends.push_back({hops_[next_ - 1].sends, to_});
  if (next_ < hops_.size() && hops_[next_].receives) receives.push_back({hops_[next_].receives, from_});
  if (sends.empty() && receives.empty()) return;
  if (&queue_ != &compute_) queue_.wait(compute_.record());
  current_ = ranks_.exchange(queue_, sends, receives);
}

void PipelineLink::arrive() {
  if (older_.live()) older_.wait(compute_);
  if (hops_[next_].receives && current_.live()) current_.wait(compute_);
}

void PipelineLink::depart() {
  ++next_;
  older_ = std::exchange(current_, Pending());
  exchange();
}

void PipelineLink::finish() {
  if (older_.live()) older_.wait(compute_);
  if (current_.live()) current_.wait(compute_);
}

}  // namespace verne
