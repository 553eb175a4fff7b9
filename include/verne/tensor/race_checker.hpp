#pragma once
#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "verne/tensor/meta_trace.hpp"

namespace verne {

/// An access to memory that nothing makes safe.
struct Race {
  enum class Kind {
    unordered,   ///< `later` and `earlier` share bytes, one of them writes, and `later` may run first
    undefined,   ///< `later` reads bytes that nothing wrote since they were allocated or handed out
    given_back,  ///< `later` touches bytes that were given back and not handed out since
  };
  /// What an operation does to a tensor.
  struct Side {
    std::string operation;     ///< of the host: "the host"
    std::string queue;         ///< of the host: empty
    std::int64_t ordinal = 0;  ///< among the operations of that queue, or the accesses of the host, from 1
    enum class Direction : std::uint8_t { read, write } direction = Direction::read;
    Tensor tensor;
  };
  Kind kind = Kind::unordered;
  Side later;
  Side earlier;              ///< unordered: the access that comes first in the host's program
  std::int64_t repeats = 0;  ///< further pairs of the same operations on the same queues

  /// "AttentionForward on compute (12) reads bf16 [64, 8, 128], which AllGather on context (3) writes as bf16
  /// [65536], not waited for; 31 more"
  std::string text() const;
};
std::ostream& operator<<(std::ostream& out, const Race& race);

/// Everything in a trace of `Recording::everything` that is not ordered as its memory needs, in program
/// order; empty where no schedule of its queues can give another result than the host's program order. A pure
/// function.
///
/// One thing happens before another where a chain of these leads from it to the other:
///   - operations of one queue run in the order in which they were enqueued;
///   - what a queue is given after a wait runs after what the event's queue was given before the event;
///   - an operation runs after what the host did before it enqueued it;
///   - the host runs after an operation only by waiting: wait_on_host, passed, synchronize, download.
/// Bytes are compared exactly: column blocks of one matrix are apart. Time: entries · log(tensors alive).
std::vector<Race> find_races(const MetaTrace& trace);

}  // namespace verne
