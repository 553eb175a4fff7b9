// find_races against a reckoning that keeps everything: for each byte all that ever touched it, for each
// queue the set of all that happened before.
#include <gtest/gtest.h>

#include <bitset>
#include <set>

#include "verne/base/random.hpp"
#include "verne/tensor/race_checker.hpp"

namespace verne {
namespace {

using Kind = TraceEntry::Kind;
constexpr std::int64_t kBytes = 96, kEntries = 60;
constexpr std::int32_t kQueues = 3;

/// What is found, as (who comes later, who comes earlier); the latter empty where there is nobody.
struct Findings {
  std::set<std::pair<std::string, std::string>> unordered;
  std::set<std::string> undefined, given_back;

  std::set<std::string> later() const {
    std::set<std::string> names;
    for (const auto& pair : unordered) names.insert(pair.first);
    return names;
  }
};

class Oracle {
 public:
  explicit Oracle(const MetaTrace& trace, const std::byte* base) : trace_(trace), base_(base) {
    for (const TraceEntry& entry : trace.entries()) step(entry);
  }
  const Findings& found() const { return found_; }

 private:
  using Set = std::bitset<kEntries>;
  struct Byte {
    Set reads, writes;
    bool undefined = false, given_back = false;
  };

  template <class Visit>
  void each_byte(std::span<const Tensor> tensors, Visit&& visit) {
    for (const Tensor& tensor : tensors) {
      for (std::int64_t r = 0; r < tensor.size(0); ++r) {
        for (std::int64_t c = 0; c < tensor.size(1); ++c)
          visit(bytes_[static_cast<std::size_t>(tensor.raw() - base_ + r * tensor.stride() + c)]);
      }
    }
  }

  void step(const TraceEntry& entry) {
    const std::size_t index = names_.size();
    const bool host = entry.kind == Kind::host_read || entry.kind == Kind::host_write;
    names_.push_back(host ? "the host" : std::string(entry.operation));
    Set& known = known_[static_cast<std::size_t>(entry.queue)];
    const auto event = static_cast<std::size_t>(entry.event);
    events_.emplace_back();
    switch (entry.kind) {
      case Kind::operation:
        known |= host_;
        act(entry, index, known);
        break;
      case Kind::host_read:
      case Kind::host_write:
        act(entry, index, host_);
        break;
      case Kind::event:
        events_.back() = known;
        break;
      case Kind::wait:
        known |= events_[event];
        break;
      case Kind::host_wait:
        host_ |= events_[event];
        break;
      case Kind::allocated:
        each_byte(trace_.writes(entry), [](Byte& byte) { byte = {.undefined = true}; });
        break;
      case Kind::handed_out:
        each_byte(trace_.writes(entry), [](Byte& byte) {
          byte.undefined = true;
          byte.given_back = false;
        });
        break;
      case Kind::given_back:
        each_byte(trace_.writes(entry), [](Byte& byte) { byte.given_back = true; });
        break;
    }
  }

  void act(const TraceEntry& entry, std::size_t index, Set& known) {
    const std::string& name = names_[index];
    const auto meet = [&](const Set& before) {
      for (std::size_t i = 0; i < index; ++i) {
        if (before[i] && !known[i]) found_.unordered.emplace(name, names_[i]);
      }
    };
    each_byte(trace_.reads(entry), [&](Byte& byte) {
      if (byte.undefined) found_.undefined.insert(name);
      if (byte.given_back) found_.given_back.insert(name);
      meet(byte.writes);
      byte.reads.set(index);
    });
    each_byte(trace_.writes(entry), [&](Byte& byte) {
      if (byte.given_back) found_.given_back.insert(name);
      meet(byte.writes | byte.reads);
      byte.writes.set(index);
      byte.undefined = false;
    });
    known.set(index);
  }

  const MetaTrace& trace_;
  const std::byte* base_;
  std::array<Byte, kBytes> bytes_{};
  std::array<Set, kQueues> known_{};
  Set host_;
  std::vector<Set> events_;  ///< by entry
  std::vector<std::string> names_;
  Findings found_;
};

/// A program drawn by a seed: mostly operations on strided tensors of 96 bytes, and waits.
class Program {
 public:
  explicit Program(std::uint64_t seed) : seed_(seed), base_(trace_.reserve_addresses(kBytes)) {
    for (std::int32_t q = 0; q < kQueues; ++q) trace_.add_queue(fmt::format("queue{}", q));
    std::vector<std::int64_t> events;
    while (std::ssize(trace_.entries()) < kEntries) {
      const auto queue = static_cast<std::int32_t>(below(kQueues));
      const std::int64_t what = below(100);
      if (what < 45) {
        trace_.add_operation(queue, fmt::format("op{}", trace_.entries().size()), {},
                             {.reads = tensors(below(3)), .writes = tensors(below(3))});
      } else if (what < 60 || events.empty()) {
        events.push_back(trace_.add_event(queue));
      } else if (what < 85) {
        // Of the latest events, so that much is ordered.
        const std::int64_t back = below(std::min<std::int64_t>(std::ssize(events), 3));
        trace_.add_wait(what < 82 ? Kind::wait : Kind::host_wait, queue,
                        events[events.size() - 1 - static_cast<std::size_t>(back)]);
      } else if (what < 90) {
        trace_.add_memory(what < 87 ? Kind::host_read : Kind::host_write, queue, tensor());
      } else {
        const std::int64_t begin = below(kBytes);
        trace_.add_memory(what < 92   ? Kind::allocated
                          : what < 97 ? Kind::handed_out
                                      : Kind::given_back,
                          queue, Tensor(base_ + begin, DType::u8, {1, 1 + below(kBytes - begin)}));
      }
    }
  }
  const MetaTrace& trace() const { return trace_; }
  const std::byte* base() const { return base_; }

 private:
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(
        random_below({.seed = seed_}, draws_++, static_cast<std::uint64_t>(bound)));
  }
  Tensor tensor() {
    const std::int64_t stride = below(4) == 0 ? 7 : 12, rows = 1 + below(5), begin = below(24);
    return Tensor(base_ + begin, DType::u8, {rows, 1 + below(stride)}, stride);
  }
  std::vector<Tensor> tensors(std::int64_t count) {
    std::vector<Tensor> all;
    for (std::int64_t i = 0; i < count; ++i) all.push_back(tensor());
    return all;
  }

  std::uint64_t seed_, draws_ = 0;
  MetaTrace trace_{Recording::everything};
  std::byte* base_;
};

TEST(RaceCheckerOracle, AgreesOnRandomPrograms) {
  std::int64_t races = 0;
  for (std::uint64_t seed = 0; seed < 1500; ++seed) {
    SCOPED_TRACE(seed);
    const Program program(seed);
    const Oracle oracle(program.trace(), program.base());
    Findings found;
    for (const Race& race : find_races(program.trace())) {
      switch (race.kind) {
        case Race::Kind::unordered:
          found.unordered.emplace(race.later.operation, race.earlier.operation);
          break;
        case Race::Kind::undefined:
          found.undefined.insert(race.later.operation);
          break;
        case Race::Kind::given_back:
          found.given_back.insert(race.later.operation);
          break;
      }
    }
    ASSERT_EQ(found.undefined, oracle.found().undefined);
    ASSERT_EQ(found.given_back, oracle.found().given_back);
    // Of several that one races with, some may stand for others; none is made up.
    ASSERT_EQ(found.later(), oracle.found().later());
    for (const auto& pair : found.unordered)
      ASSERT_TRUE(oracle.found().unordered.contains(pair)) << pair.first << " and " << pair.second;
    races += std::ssize(found.unordered);
  }
  EXPECT_GT(races, 1500);
}

}  // namespace
}  // namespace verne
