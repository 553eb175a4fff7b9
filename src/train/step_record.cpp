#include "verne/train/step_record.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace verne {
namespace {

// What goes to the device: the signals as f64, then scalars and loss scale as f32.
constexpr std::int64_t kSignalBytes = 8 * static_cast<std::int64_t>(kSignals);
constexpr std::int64_t kInputBytes = kSignalBytes + 4 * (kHostStepScalars + 1);
// What comes back, f64: the loss's sum, the gradient's sum of squares, the signals.
constexpr std::int64_t kSums = 2 + static_cast<std::int64_t>(kSignals);

}  // namespace

StepRecords::StepRecords(ParallelRuntime& runtime, int ahead) : runtime_(runtime) {
  Queue& queue = runtime.compute();
  inputs_memory_ = Buffer(queue, kInputBytes, MemoryKind::batch);
  sums_memory_ = Buffer(queue, DType::f64, {kSums}, MemoryKind::batch);
  scalars_memory_ = Buffer(queue, DType::f32, {kStepScalars}, MemoryKind::batch);
  sums_ = sums_memory_.tensor();
  loss_sum_ = sums_.rows(0, 1);
  sum_of_squares_ = sums_.rows(1, 1);
  scalars_ = scalars_memory_.tensor();
  loss_scale_ = Tensor(inputs_memory_.data() + kInputBytes - 4, DType::f32, {1});
  queue.zero(scalars_);
  for (int i = 0; i < ahead; ++i)
    slots_.push_back({.inputs = HostBuffer(queue, kInputBytes),
                      .results = HostBuffer(queue, 8 * kSums),
                      .uploaded = {},
                      .arrived = {}});
}

void StepRecords::begin(const Inputs& inputs) {
  require(unread() < std::ssize(slots_), "{} steps on their way", unread());
  Queue& queue = runtime_.compute();
  Slot& slot = slots_[next_slot_];
  slot.uploaded.wait_on_host();  // long past: its results were read
  const std::span<std::byte> bytes = slot.inputs.bytes();
  queue.host_access(bytes, Queue::HostAccess::write);
  const float scale = 1.0f / static_cast<float>(std::max<std::int64_t>(1, inputs.counted_tokens));
  std::memcpy(bytes.data(), inputs.signals.data(), kSignalBytes);
  std::memcpy(bytes.data() + kSignalBytes, inputs.scalars.data(), 4 * kHostStepScalars);
  std::memcpy(bytes.data() + kInputBytes - 4, &scale, 4);
  queue.copy_from_host(inputs_memory_.tensor(), bytes);
  slot.uploaded = queue.record();
  steps_.push_back({next_slot_, inputs.step, inputs.counted_tokens});
  next_slot_ = (next_slot_ + 1) % slots_.size();

  const auto part = [&](std::int64_t at, DType type, std::int64_t count) {
    return Tensor(inputs_memory_.data() + at, type, {count});
  };
  queue.copy(scalars_.rows(0, kHostStepScalars), part(kSignalBytes, DType::f32, kHostStepScalars));
  queue.copy(sums_.rows(2, kSums - 2), part(0, DType::f64, kSums - 2));
  queue.zero(sums_.rows(0, 2));
}

void StepRecords::reduce(bool reports_loss) {
  Queue& queue = runtime_.compute();
  if (!reports_loss) queue.zero(loss_sum_);
  runtime_.world().all_reduce(queue, sums_, Reduce::sum).wait(queue);
}

void StepRecords::end() {
  Queue& queue = runtime_.compute();
  Slot& slot = slots_[steps_.back().slot];
  queue.copy_to_host(slot.results.bytes(), sums_);
  slot.arrived = queue.record();
}

StepResult StepRecords::read() {
  require(!steps_.empty(), "no step is on its way");
  const OnItsWay step = steps_.front();
  steps_.pop_front();
  Slot& slot = slots_[step.slot];
  slot.arrived.wait_on_host();
  const std::span<const std::byte> bytes = slot.results.bytes();
  runtime_.compute().host_access(bytes, Queue::HostAccess::read);
  std::array<double, static_cast<std::size_t>(kSums)> sums{};
  std::memcpy(sums.data(), bytes.data(), sizeof(sums));
  StepResult result{.step = step.step,
                    .loss = sums[0] / static_cast<double>(std::max<std::int64_t>(1, step.counted_tokens)),
                    .grad_norm = std::sqrt(sums[1])};
  std::copy_n(sums.begin() + 2, kSignals, result.signals.begin());
  return result;
}

}  // namespace verne
