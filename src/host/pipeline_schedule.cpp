#include "verne/host/pipeline_schedule.hpp"

#include <algorithm>
#include <map>

#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

using Kind = Action::Kind;

struct Work {
  int chunk = 0;
  std::int64_t micro_batch = 0;
};

enum class Direction { forward, backward };

/// The order in which every stage runs its chunks: `stages` micro-batches through one chunk, then through the
/// next.
std::vector<Work> order(const PipelinePlace& place, std::int64_t micro_batches, Direction direction) {
  std::vector<Work> all;
  const std::int64_t group = place.chunks == 1 ? micro_batches : place.stages;
  for (std::int64_t first = 0; first < micro_batches; first += group) {
    for (int i = 0; i < place.chunks; ++i) {
      const int chunk = direction == Direction::forward ? i : place.chunks - 1 - i;
      for (std::int64_t m = first; m < std::min(first + group, micro_batches); ++m) all.push_back({chunk, m});
    }
  }
  return all;
}

std::vector<Action> one_forward_one_backward(const PipelinePlace& place, std::int64_t micro_batches) {
  // With interleaving a short last group would break the pace at which stages feed each other: the schedule
  // is made for whole groups, and what is not there is left out.
  const std::int64_t whole =
      place.chunks == 1 ? micro_batches : round_up<std::int64_t>(micro_batches, place.stages);
  const std::vector<Work> forward = order(place, whole, Direction::forward);
  const std::vector<Work> backward = order(place, whole, Direction::backward);
  const std::int64_t ahead = place.stages - 1 - place.stage;
  const auto warm_up = static_cast<std::size_t>(std::min<std::int64_t>(
      std::ssize(forward), place.chunks == 1 ? ahead : 2 * ahead + (place.chunks - 1) * place.stages));
  std::vector<Action> actions;
  const auto add = [&](Kind kind, const Work& work) {
    if (work.micro_batch < micro_batches)
      actions.push_back({.kind = kind, .chunk = work.chunk, .micro_batch = work.micro_batch});
  };
  for (std::size_t i = 0; i < warm_up; ++i) add(Kind::forward, forward[i]);
  for (std::size_t i = warm_up; i < forward.size(); ++i) {
    add(Kind::forward, forward[i]);
    add(Kind::backward, backward[i - warm_up]);
  }
  for (std::size_t i = forward.size() - warm_up; i < backward.size(); ++i) add(Kind::backward, backward[i]);
  return actions;
}

/// Hands out the lowest number that is free.
class Numbers {
 public:
  int take() {
    const auto free = std::find(used_.begin(), used_.end(), false);
    const auto number = free - used_.begin();
    if (free == used_.end()) {
      used_.push_back(true);
    } else {
      *free = true;
    }
    return static_cast<int>(number);
  }
  void give_back(int number) { used_[static_cast<std::size_t>(number)] = false; }
  int most() const { return static_cast<int>(used_.size()); }

 private:
  std::vector<bool> used_;
};

/// Gives every action its buffers.
PipelineSchedule with_buffers(const PipelinePlace& place, std::vector<Action> actions, Direction ends_with) {
  PipelineSchedule schedule{.actions = std::move(actions)};
  auto& all = schedule.actions;
  std::vector<std::size_t> forwards;
  std::map<std::int64_t, std::size_t> last_use;  // of a micro-batch
  std::vector<std::int64_t> arrival;             // micro-batches in the order of their first use
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].kind == Kind::forward) forwards.push_back(i);
    if (!last_use.contains(all[i].micro_batch)) arrival.push_back(all[i].micro_batch);
    last_use[all[i].micro_batch] = i;
  }
  Numbers slots, inputs, batches;
  std::map<std::pair<int, std::int64_t>, std::pair<int, int>> in_flight;  // slot, input
  std::map<std::int64_t, int> batch_of;
  std::size_t next_arrival = 1, next_forward = 0;
  const auto take_input = [&] {  // for the next forward, as soon as the one before it has run
    if (next_forward >= forwards.size()) return;
    Action& action = all[forwards[next_forward++]];
    if (!place.first(action.chunk)) action.input = inputs.take();
  };
  if (!arrival.empty()) batch_of[arrival[0]] = batches.take();
  take_input();
  for (std::size_t i = 0; i < all.size(); ++i) {
    Action& action = all[i];
    const std::pair work{action.chunk, action.micro_batch};
    action.batch = batch_of.at(action.micro_batch);
    if (action.kind == Kind::forward) {
      action.slot = slots.take();
      in_flight[work] = {action.slot, action.input};
      take_input();
    } else {
      action.slot = in_flight.at(work).first;
    }
    const bool newest = next_arrival > 0 && arrival[next_arrival - 1] == action.micro_batch;
    if (newest && next_arrival < arrival.size()) {
      action.next_micro_batch = arrival[next_arrival++];
      action.next_batch = batch_of[action.next_micro_batch] = batches.take();
    }
    if (last_use[action.micro_batch] == i) batches.give_back(action.batch);
    if (action.kind == Kind::backward || ends_with == Direction::forward) {
      const auto [slot, input] = in_flight.at(work);
      slots.give_back(slot);
      if (input >= 0) inputs.give_back(input);
      in_flight.erase(work);
    }
  }
  schedule.slots = slots.most();
  schedule.inputs = inputs.most();
  schedule.batches = batches.most();
  return schedule;
}

void check_place(const PipelinePlace& place, std::int64_t micro_batches) {
  require(place.stage >= 0 && place.stage < place.stages && place.chunks >= 1 && micro_batches >= 0 &&
              (place.chunks == 1 || place.stages > 1),
          "stage {} of {} with {} chunks and {} micro-batches", place.stage, place.stages, place.chunks,
          micro_batches);
}

}  // namespace

PipelineSchedule training_schedule(const PipelinePlace& place, std::int64_t micro_batches) {
  check_place(place, micro_batches);
  return with_buffers(place, one_forward_one_backward(place, micro_batches), Direction::backward);
}

PipelineSchedule forward_schedule(const PipelinePlace& place, std::int64_t micro_batches) {
  check_place(place, micro_batches);
  std::vector<Action> actions;
  for (const Work& work : order(place, micro_batches, Direction::forward))
    actions.push_back({.kind = Kind::forward, .chunk = work.chunk, .micro_batch = work.micro_batch});
  return with_buffers(place, std::move(actions), Direction::forward);
}

}  // namespace verne
