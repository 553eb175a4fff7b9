#include "verne/tensor/race_checker.hpp"

#include <algorithm>
#include <map>
#include <ostream>
#include <tuple>
#include <unordered_map>

#include "verne/tensor/region.hpp"

namespace verne {
namespace {

using Direction = Race::Side::Direction;

/// For each actor, how many of its actions have happened. Actor 0 is the host, actor i + 1 the queue i.
using Clock = std::vector<std::int64_t>;

void join(Clock& clock, const Clock& other) {
  for (std::size_t i = 0; i < clock.size(); ++i) clock[i] = std::max(clock[i], other[i]);
}

void append(std::vector<Region>& regions, const std::vector<Region>& more) {
  regions.insert(regions.end(), more.begin(), more.end());
}

/// One tensor of one action.
struct Touch {
  Region region;
  std::int64_t entry = 0;   ///< its index in the trace
  std::int64_t tensor = 0;  ///< its index among the entry's
  std::size_t actor = 0;
  std::int64_t ordinal = 0;  ///< among the actor's actions: its clock as it runs
  Direction direction = Direction::read;

  bool happened_before(const Clock& clock) const { return clock[actor] >= ordinal; }
};

/// What is known of the bytes from a cell's place in the map to `end`.
struct Cell {
  std::uintptr_t end = 0;
  std::vector<Touch> touches;     ///< what a later touch must come after
  std::vector<Region> undefined;  ///< what nothing wrote, within the cell
  bool given_back = false;
};

/// The address space as a partition into cells; what was never touched has none.
class Cells {
 public:
  using Map = std::map<std::uintptr_t, Cell>;

  /// Calls visit(begin, cell) for cells that make up [begin, end) exactly.
  template <class Visit>
  void each(std::uintptr_t begin, std::uintptr_t end, Visit&& visit) {
    split(begin);
    split(end);
    auto at = cells_.lower_bound(begin);
    while (begin < end) {
      if (at == cells_.end() || at->first > begin) {  // nobody was here yet
        const std::uintptr_t gap_end = at == cells_.end() ? end : std::min(end, at->first);
        at = cells_.emplace_hint(at, begin, Cell{.end = gap_end});
      }
      visit(at->first, at->second);
      begin = at->second.end;
      ++at;
    }
  }

  /// One cell in the place of those that make up [begin, end).
  void replace(std::uintptr_t begin, std::uintptr_t end, Cell cell) {
    split(begin);
    split(end);
    const auto at = cells_.erase(cells_.lower_bound(begin), cells_.lower_bound(end));
    cells_.emplace_hint(at, begin, std::move(cell));
  }

 private:
  /// Makes `address` a border of cells.
  void split(std::uintptr_t address) {
    auto after = cells_.upper_bound(address);
    if (after == cells_.begin()) return;
    const auto at = std::prev(after);
    if (at->first == address || at->second.end <= address) return;
    Cell upper = at->second;
    at->second.end = address;
    keep_inside(at->first, at->second);
    keep_inside(address, upper);
    cells_.emplace_hint(after, address, std::move(upper));
  }

  static void keep_inside(std::uintptr_t begin, Cell& cell) {
    const Region bytes(begin, cell.end);
    std::erase_if(cell.touches, [&](const Touch& touch) { return !overlap(touch.region, bytes); });
    std::vector<Region> undefined;
    for (const Region& region : cell.undefined) append(undefined, clip(region, begin, cell.end));
    cell.undefined = std::move(undefined);
  }

  Map cells_;
};

class Checker {
 public:
  explicit Checker(const MetaTrace& trace)
      : trace_(trace), clocks_(trace.queues().size() + 1, Clock(trace.queues().size() + 1)) {}

  std::vector<Race> run() {
    for (entry_ = 0; entry_ < std::ssize(trace_.entries()); ++entry_) step(entry(entry_));
    return std::move(races_);
  }

 private:
  static constexpr std::size_t kHost = 0;
  static std::size_t actor(const TraceEntry& entry) { return static_cast<std::size_t>(entry.queue) + 1; }
  const TraceEntry& entry(std::int64_t index) const {
    return trace_.entries()[static_cast<std::size_t>(index)];
  }

  void step(const TraceEntry& entry) {
    switch (entry.kind) {
      case TraceEntry::Kind::operation:
        join(clocks_[actor(entry)], clocks_[kHost]);
        return act(entry, actor(entry));
      case TraceEntry::Kind::host_read:
      case TraceEntry::Kind::host_write:
        return act(entry, kHost);
      case TraceEntry::Kind::event:
        events_.emplace(entry_, clocks_[actor(entry)]);
        return;
      case TraceEntry::Kind::wait:
        return join(clocks_[actor(entry)], events_.at(entry.event));
      case TraceEntry::Kind::host_wait:
        return join(clocks_[kHost], events_.at(entry.event));
      case TraceEntry::Kind::allocated:
        for (const Tensor& tensor : trace_.writes(entry)) {
          const Region bytes(tensor);
          cells_.replace(bytes.begin(), bytes.end(),
                         {.end = bytes.end(), .touches = {}, .undefined = {bytes}});
        }
        return;
      case TraceEntry::Kind::handed_out:
        return each_cell(entry, [](std::uintptr_t begin, Cell& cell) {
          cell.undefined = {Region(begin, cell.end)};
          cell.given_back = false;
        });
      case TraceEntry::Kind::given_back:
        return each_cell(entry, [](std::uintptr_t, Cell& cell) { cell.given_back = true; });
    }
  }

  template <class Visit>
  void each_cell(const TraceEntry& entry, Visit&& visit) {
    for (const Tensor& tensor : trace_.writes(entry)) {
      const Region bytes(tensor);
      cells_.each(bytes.begin(), bytes.end(), visit);
    }
  }

  /// The action of `entry`: what it reads, then what it writes.
  void act(const TraceEntry& entry, std::size_t actor) {
    reported_.clear();
    Touch touch{
        .region = {}, .entry = entry_, .tensor = 0, .actor = actor, .ordinal = ++clocks_[actor][actor]};
    for (const Tensor& tensor : trace_.reads(entry)) {
      touch.region = Region(tensor);
      read(touch);
      ++touch.tensor;
    }
    touch.direction = Direction::write;
    for (const Tensor& tensor : trace_.writes(entry)) {
      touch.region = Region(tensor);
      write(touch);
      ++touch.tensor;
    }
  }

  void read(const Touch& now) {
    cells_.each(now.region.begin(), now.region.end(), [&](std::uintptr_t begin, Cell& cell) {
      if (!overlap(now.region, Region(begin, cell.end))) return;
      for (const Region& region : cell.undefined) {
        if (overlap(region, now.region)) report(Race::Kind::undefined, now);
      }
      meet(now, begin, cell);
    });
  }

  void write(const Touch& now) {
    const std::uintptr_t first = now.region.begin(), last = now.region.end();
    std::int64_t cells = 0;
    bool alone = now.region.contiguous();  // nothing else is known of all these bytes
    cells_.each(first, last, [&](std::uintptr_t begin, Cell& cell) {
      if (!overlap(now.region, Region(begin, cell.end))) return;
      meet(now, begin, cell);
      std::vector<Region> undefined;
      for (const Region& region : cell.undefined) append(undefined, subtract(region, now.region));
      cell.undefined = std::move(undefined);
      ++cells;
      alone = alone && cell.touches.size() == 1 && !cell.given_back;
    });
    if (alone && cells > 1) cells_.replace(first, last, {.end = last, .touches = {now}, .undefined = {}});
  }

  /// Compares a touch with those before it in a cell, and puts it in the place of those that it makes
  /// needless: what comes after it then comes after them too.
  void meet(const Touch& now, std::uintptr_t begin, Cell& cell) {
    if (cell.given_back) report(Race::Kind::given_back, now);
    const Clock& clock = clocks_[now.actor];
    std::erase_if(cell.touches, [&](const Touch& before) {
      const bool conflict = now.direction == Direction::write || before.direction == Direction::write;
      if (!before.happened_before(clock)) {
        if (conflict && share(now.region, before.region, begin, cell.end))
          report(Race::Kind::unordered, now, before);
        return false;
      }
      const bool as_strong = now.direction == Direction::write || before.direction == Direction::read;
      return as_strong && (now.region.contiguous() || covers(now.region, before.region));
    });
    cell.touches.push_back(now);
  }

  /// Whether two touches of a cell share bytes in it. One without gaps has all of the cell.
  static bool share(const Region& a, const Region& b, std::uintptr_t begin, std::uintptr_t end) {
    if (a.contiguous() || b.contiguous()) return true;
    for (const Region& in_a : clip(a, begin, end)) {
      for (const Region& in_b : clip(b, begin, end)) {
        if (overlap(in_a, in_b)) return true;
      }
    }
    return false;
  }

  Race::Side side(const Touch& touch) const {
    const TraceEntry& of = entry(touch.entry);
    const bool reads = touch.direction == Direction::read;
    const Tensor& tensor = reads ? trace_.reads(of)[static_cast<std::size_t>(touch.tensor)]
                                 : trace_.writes(of)[static_cast<std::size_t>(touch.tensor - of.reads)];
    const bool host = touch.actor == kHost;
    return {.operation = host ? "the host" : std::string(of.operation),
            .queue = host ? std::string() : trace_.queues()[static_cast<std::size_t>(of.queue)],
            .ordinal = touch.ordinal,
            .direction = touch.direction,
            .tensor = tensor};
  }

  void report(Race::Kind kind, const Touch& later, const Touch& earlier = {.entry = -1}) {
    // A pair of actions counts once, however many tensors and cells they share.
    const auto pair = std::pair(kind, earlier.entry);
    if (std::find(reported_.begin(), reported_.end(), pair) != reported_.end()) return;
    reported_.push_back(pair);
    Race race{.kind = kind, .later = side(later), .earlier = {}};
    if (kind == Race::Kind::unordered) race.earlier = side(earlier);
    const auto [known, is_new] = known_.try_emplace(
        {kind, race.later.operation, race.later.queue, race.earlier.operation, race.earlier.queue},
        races_.size());
    if (is_new) {
      races_.push_back(std::move(race));
    } else {
      ++races_[known->second].repeats;
    }
  }

  const MetaTrace& trace_;
  std::vector<Clock> clocks_;                       ///< of each actor
  std::unordered_map<std::int64_t, Clock> events_;  ///< by entry: the clock of its queue
  Cells cells_;
  std::int64_t entry_ = 0;
  std::vector<std::pair<Race::Kind, std::int64_t>>
      reported_;  ///< of this entry: the kind and the other entry
  using Key = std::tuple<Race::Kind, std::string, std::string, std::string, std::string>;
  std::map<Key, std::size_t> known_;
  std::vector<Race> races_;
};

std::string who(const Race::Side& side) {
  if (side.queue.empty()) return fmt::format("{} ({})", side.operation, side.ordinal);
  return fmt::format("{} on {} ({})", side.operation, side.queue, side.ordinal);
}
std::string does(const Race::Side& side) {
  return side.direction == Direction::read ? "reads" : "writes";
}
std::string what(const Tensor& tensor) {
  return fmt::format("{} {}", name(tensor.dtype()), tensor.shape().text());
}

}  // namespace

std::string Race::text() const {
  std::string text = fmt::format("{} {} {}, ", who(later), does(later), what(later.tensor));
  switch (kind) {
    case Kind::unordered:
      text +=
          fmt::format("which {} {} as {}, not waited for", who(earlier), does(earlier), what(earlier.tensor));
      break;
    case Kind::undefined:
      text += "which nothing wrote, or not all of it";
      break;
    case Kind::given_back:
      text += "which was given back";
      break;
  }
  return repeats == 0 ? text : fmt::format("{}; {} more", text, repeats);
}

std::ostream& operator<<(std::ostream& out, const Race& race) {
  return out << race.text();
}

std::vector<Race> find_races(const MetaTrace& trace) {
  return Checker(trace).run();
}

}  // namespace verne
