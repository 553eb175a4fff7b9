// Schedules as lists: complete, bounded in flight, and without deadlock under the rules by which streams and
// MPI move messages.
#include "verne/host/pipeline_schedule.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <tuple>

namespace verne {
namespace {

using Kind = Action::Kind;

/// What runs where, from the lists of all stages. Names of work: (kind, model chunk, micro-batch).
struct Work {
  Kind kind;
  int chunk;
  std::int64_t micro_batch;
  friend auto operator<=>(const Work&, const Work&) = default;
};

std::vector<PipelinePlace> places(int stages, int chunks) {
  std::vector<PipelinePlace> all;
  for (int stage = 0; stage < stages; ++stage)
    all.push_back({.stage = stage, .stages = stages, .chunks = chunks});
  return all;
}

/// How a message passes: a stream's exchange begins when the exchange before it on the same stream has ended
/// and the computation has come so far; MPI's begins when the host comes to it. Either ends when both ends of
/// each of its messages have begun.
enum class Transport { streams, host };

/// Runs all stages' lists as far as they go. Whether all of them end.
class Pipeline {
 public:
  Pipeline(int chunks, std::int64_t micro_batches, const std::vector<PipelineSchedule>& schedules,
           Transport transport)
      : stages_(static_cast<int>(schedules.size())),
        chunks_(chunks),
        micro_batches_(micro_batches),
        transport_(transport) {
    for (int stage = 0; stage < stages_; ++stage) {
      Stage s{.place = {.stage = stage, .stages = stages_, .chunks = chunks},
              .actions = schedules[static_cast<std::size_t>(stage)].actions};
      for (auto& index : s.index) index.resize(static_cast<std::size_t>(stages_ * chunks * micro_batches));
      for (const Action& action : s.actions) {
        const int d = action.kind == Kind::backward;
        const Work work{action.kind, s.place.model_chunk(action.chunk), action.micro_batch};
        s.index[d][static_cast<std::size_t>(work.chunk * micro_batches + work.micro_batch)] =
            s.runs[d].size();
        s.runs[d].push_back(work);
      }
      for (int d : {0, 1}) {
        s.begun[d].assign(s.runs[d].size() + 1, false);
        s.ended[d].assign(s.runs[d].size() + 1, false);
      }
      all_.push_back(std::move(s));
    }
  }

  bool ends() {
    for (bool moved = true; moved;) {
      moved = false;
      for (Stage& stage : all_) {
        for (int d : {0, 1}) moved = pass_messages(stage, d) || moved;
        while (stage.next < stage.actions.size() && may_run(stage)) {
          ++stage.done[stage.actions[stage.next].kind == Kind::backward];
          ++stage.next;
          moved = true;
        }
      }
    }
    for (const Stage& stage : all_)
      if (stage.next < stage.actions.size() || stage.open[0] < stage.ended[0].size() ||
          stage.open[1] < stage.ended[1].size())
        return false;
    return true;
  }

 private:
  struct Stage {
    PipelinePlace place;
    std::vector<Action> actions;
    std::vector<Work> runs[2];             // forwards, backwards in order
    std::vector<bool> begun[2], ended[2];  // exchange i of each direction: run i − 1's result, run i's input
    std::size_t done[2] = {0, 0};          // runs over
    std::size_t open[2] = {0, 0};          // the first exchange that has not ended
    std::size_t next = 0;                  // action
    std::vector<std::size_t> index[2];     // of work: [chunk of the model · micro-batches + micro-batch]
  };

  bool pass_messages(Stage& stage, int d) {
    bool moved = false;
    for (std::size_t i = stage.open[d]; i < stage.begun[d].size() && i <= stage.done[d]; ++i) {
      if (!stage.begun[d][i] && may_begin(stage, d, i)) stage.begun[d][i] = moved = true;
      if (stage.begun[d][i] && !stage.ended[d][i] && both_begun(stage, d, i))
        stage.ended[d][i] = moved = true;
    }
    while (stage.open[d] < stage.ended[d].size() && stage.ended[d][stage.open[d]]) ++stage.open[d];
    return moved;
  }

  int last_chunk() const { return stages_ * chunks_ - 1; }
  bool receives(int d, const Work& work) const { return d == 0 ? work.chunk > 0 : work.chunk < last_chunk(); }
  bool sends(int d, const Work& work) const { return d == 0 ? work.chunk < last_chunk() : work.chunk > 0; }
  int holder(int chunk) const { return chunk % stages_; }

  bool may_begin(const Stage& stage, int d, std::size_t i) const {
    if (stage.done[d] < i) return false;  // run i − 1 is not over
    return transport_ == Transport::host || i == 0 || stage.ended[d][i - 1];
  }

  /// Exchanges of `stage` carry messages to and from other stages' exchanges; equal ones match in order.
  bool both_begun(const Stage& stage, int d, std::size_t i) const {
    const auto& runs = stage.runs[d];
    if (i > 0 && sends(d, runs[i - 1])) {
      const Work arrives{runs[i - 1].kind, runs[i - 1].chunk + (d == 0 ? 1 : -1), runs[i - 1].micro_batch};
      const Stage& other = all_[static_cast<std::size_t>(holder(arrives.chunk))];
      if (!other.begun[d][index_of(other, d, arrives)]) return false;
    }
    if (i < runs.size() && receives(d, runs[i])) {
      const Work comes_from{runs[i].kind, runs[i].chunk - (d == 0 ? 1 : -1), runs[i].micro_batch};
      const Stage& other = all_[static_cast<std::size_t>(holder(comes_from.chunk))];
      if (!other.begun[d][index_of(other, d, comes_from) + 1]) return false;
    }
    return true;
  }
  std::size_t index_of(const Stage& stage, int d, const Work& work) const {
    return stage.index[d][static_cast<std::size_t>(work.chunk * micro_batches_ + work.micro_batch)];
  }

  /// The next action's input is there, and what it will send may be overwritten.
  bool may_run(const Stage& stage) const {
    const int d = stage.actions[stage.next].kind == Kind::backward;
    const std::size_t i = stage.done[d];
    if (i > 0 && !stage.ended[d][i - 1]) return false;
    return !receives(d, stage.runs[d][i]) || stage.ended[d][i];
  }

  int stages_, chunks_;
  std::int64_t micro_batches_;
  Transport transport_;
  std::vector<Stage> all_;
};

std::vector<PipelineSchedule> training(int stages, int chunks, std::int64_t micro_batches) {
  std::vector<PipelineSchedule> all;
  for (const PipelinePlace& place : places(stages, chunks))
    all.push_back(training_schedule(place, micro_batches));
  return all;
}
std::vector<PipelineSchedule> forward(int stages, int chunks, std::int64_t micro_batches) {
  std::vector<PipelineSchedule> all;
  for (const PipelinePlace& place : places(stages, chunks))
    all.push_back(forward_schedule(place, micro_batches));
  return all;
}

/// Every piece of work once, backward behind its forward; buffers in use never given out twice.
void expect_sound(const PipelineSchedule& schedule, const PipelinePlace& place, std::int64_t micro_batches,
                  bool trains) {
  std::map<std::tuple<Kind, int, std::int64_t>, std::size_t> seen;
  std::map<int, std::pair<int, std::int64_t>> slots;  // in use, by whom
  std::map<int, std::int64_t> batches;
  std::set<int> inputs;
  std::map<std::pair<int, std::int64_t>, int> input_of;
  std::map<std::int64_t, std::size_t> last;
  for (std::size_t i = 0; i < schedule.actions.size(); ++i) last[schedule.actions[i].micro_batch] = i;
  if (!schedule.actions.empty()) batches[schedule.actions[0].batch] = schedule.actions[0].micro_batch;
  for (std::size_t i = 0; i < schedule.actions.size(); ++i) {
    const Action& a = schedule.actions[i];
    const std::pair work{a.chunk, a.micro_batch};
    EXPECT_TRUE(seen.emplace(std::tuple{a.kind, a.chunk, a.micro_batch}, i).second);
    ASSERT_LT(a.slot, schedule.slots);
    ASSERT_LT(a.batch, schedule.batches);
    ASSERT_LT(a.input, schedule.inputs);
    EXPECT_EQ(batches.at(a.batch), a.micro_batch);
    if (a.kind == Kind::forward) {
      EXPECT_EQ(a.input >= 0, !place.first(a.chunk));
      EXPECT_TRUE(slots.emplace(a.slot, work).second);
      if (a.input >= 0) {
        EXPECT_TRUE(inputs.insert(a.input).second);
        input_of[work] = a.input;
      }
    } else {
      EXPECT_TRUE(seen.contains(std::tuple{Kind::forward, a.chunk, a.micro_batch}));
      EXPECT_EQ(slots.at(a.slot), work);
    }
    if (a.next_micro_batch >= 0) {
      EXPECT_TRUE(batches.emplace(a.next_batch, a.next_micro_batch).second);
    }
    if (last.at(a.micro_batch) == i) batches.erase(a.batch);
    if (a.kind == Kind::backward || !trains) {
      slots.erase(a.slot);
      if (input_of.contains(work)) inputs.erase(input_of.at(work));
    }
  }
  EXPECT_EQ(std::ssize(seen), (trains ? 2 : 1) * place.chunks * micro_batches);
  EXPECT_TRUE(slots.empty() && batches.empty() && inputs.empty());
}

TEST(PipelineSchedule, OneForwardOneBackwardByHand) {
  const auto text = [](const PipelineSchedule& schedule) {
    std::string all;
    for (const Action& a : schedule.actions)
      all += (a.kind == Kind::forward ? "F" : "B") + std::to_string(a.micro_batch) + " ";
    return all;
  };
  EXPECT_EQ(text(training_schedule({.stage = 0, .stages = 3}, 4)), "F0 F1 F2 B0 F3 B1 B2 B3 ");
  EXPECT_EQ(text(training_schedule({.stage = 1, .stages = 3}, 4)), "F0 F1 B0 F2 B1 F3 B2 B3 ");
  EXPECT_EQ(text(training_schedule({.stage = 2, .stages = 3}, 4)), "F0 B0 F1 B1 F2 B2 F3 B3 ");
  EXPECT_EQ(text(training_schedule({}, 3)), "F0 B0 F1 B1 F2 B2 ");
  EXPECT_EQ(text(forward_schedule({.stage = 1, .stages = 3}, 3)), "F0 F1 F2 ");
  EXPECT_TRUE(training_schedule({.stage = 1, .stages = 3}, 0).actions.empty());
}

TEST(PipelineSchedule, InterleavedByHand) {
  const PipelineSchedule schedule = training_schedule({.stage = 1, .stages = 2, .chunks = 2}, 2);
  std::string all;
  for (const Action& a : schedule.actions)
    all += std::string(a.kind == Kind::forward ? "F" : "B") + std::to_string(a.chunk) +
           std::to_string(a.micro_batch) + " ";
  EXPECT_EQ(all, "F00 F01 F10 B10 F11 B11 B00 B01 ");
}

/// One micro-batch is fetched while another one runs, however many wait.
TEST(PipelineSchedule, FetchesOneAhead) {
  const PipelineSchedule schedule = training_schedule({}, 8);
  EXPECT_EQ(schedule.slots, 1);
  EXPECT_EQ(schedule.batches, 2);
  EXPECT_EQ(schedule.inputs, 0);
  for (const Action& a : schedule.actions)
    EXPECT_EQ(a.next_micro_batch, a.kind == Kind::forward && a.micro_batch < 7 ? a.micro_batch + 1 : -1);
}

TEST(PipelineSchedule, SoundAndBoundedAndWithoutDeadlock) {
  for (int stages = 1; stages <= 8; ++stages)
    for (int chunks = 1; chunks <= (stages == 1 ? 1 : 4); ++chunks)
      for (std::int64_t micro_batches = 1; micro_batches <= 40; ++micro_batches) {
        SCOPED_TRACE(::testing::Message() << stages << " stages, " << chunks << " chunks, " << micro_batches);
        const auto train = training(stages, chunks, micro_batches),
                   evaluate = forward(stages, chunks, micro_batches);
        for (const PipelinePlace& place : places(stages, chunks)) {
          const PipelineSchedule &t = train[static_cast<std::size_t>(place.stage)],
                                 &f = evaluate[static_cast<std::size_t>(place.stage)];
          expect_sound(t, place, micro_batches, true);
          expect_sound(f, place, micro_batches, false);
          const int bound =
              chunks == 1 ? stages - place.stage : 2 * (stages - 1 - place.stage) + (chunks - 1) * stages + 1;
          EXPECT_LE(t.slots, std::min<std::int64_t>(bound, chunks * micro_batches));
          EXPECT_LE(t.inputs, t.slots + 1);
          EXPECT_EQ(f.slots, 1);
          EXPECT_LE(f.inputs, 2);
          EXPECT_LE(f.batches, chunks == 1 ? 2 : stages + 1);
        }
        for (const Transport transport : {Transport::streams, Transport::host}) {
          EXPECT_TRUE(Pipeline(chunks, micro_batches, train, transport).ends());
          EXPECT_TRUE(Pipeline(chunks, micro_batches, evaluate, transport).ends());
        }
        if (::testing::Test::HasFailure()) return;
      }
}

}  // namespace
}  // namespace verne
