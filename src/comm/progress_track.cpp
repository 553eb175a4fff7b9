#include "progress_track.hpp"

#include <algorithm>
#include <utility>

#include "verne/base/error.hpp"
#if VERNE_WITH_CUDA
#include "verne/tensor/cuda_queue.hpp"
#endif

namespace verne {

ProgressTrack::ProgressTrack(std::string subject, std::vector<std::int64_t> members, std::uint64_t key,
                             std::unique_ptr<ProgressMarks> marks, std::size_t remembered,
                             std::int64_t previous)
    : subject_(std::move(subject)),
      members_(std::move(members)),
      key_(key),
      marks_(std::move(marks)),
      last_(previous),
      done_(previous),
      notes_(remembered) {
  marks_->mark_arrived(previous);
  marks_->mark_done(previous);
}

std::int64_t ProgressTrack::begin(OperationNote note) {
  const std::int64_t number = ++last_;
  {
    std::lock_guard lock(mutex_);
    notes_[static_cast<std::size_t>(number) % notes_.size()] = std::move(note);
  }
  open_.push_back(number);
  marks_->mark_arrived(number);
  return number;
}

void ProgressTrack::end(std::int64_t number) {
  open_.erase(std::find(open_.begin(), open_.end(), number));
  const std::int64_t done = open_.empty() ? last_ : open_.front() - 1;
  if (done > done_) marks_->mark_done(done_ = done);
}

OperationNote ProgressTrack::note(std::int64_t number) const {
  std::lock_guard lock(mutex_);
  return notes_[static_cast<std::size_t>(number) % notes_.size()];
}

std::unique_ptr<ProgressMarks> make_marks([[maybe_unused]] Queue& queue) {
#if VERNE_WITH_CUDA
  if (auto* cuda = dynamic_cast<CudaQueue*>(&queue)) return make_cuda_marks(*cuda);
#endif
  return std::make_unique<HostMarks>();
}

}  // namespace verne
