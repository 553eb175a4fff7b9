#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "verne/tensor/queue.hpp"

namespace verne {

/// What an operation costs: floating-point operations, and bytes of device memory read and written once each.
struct Cost {
  double flops = 0;
  double bytes = 0;
  Cost& operator+=(const Cost& other) {
    flops += other.flops;
    bytes += other.bytes;
    return *this;
  }
};

/// The memory that an operation touches. What is added to, or changed in part, is in both lists; a tensor
/// that is in `writes` alone is overwritten to its last element, whatever it held.
struct Access {
  std::vector<Tensor> reads, writes;
};

/// One thing that the host did, in the order in which it did them.
struct TraceEntry {
  enum class Kind : std::uint8_t {
    operation,   ///< enqueued on `queue`
    event,       ///< recorded on `queue`
    wait,        ///< what `queue` is given from here on runs after `event`
    host_wait,   ///< the host waited for `event`
    host_read,   ///< the host read memory of `allocate_host`
    host_write,  ///< the host wrote there
    allocated,   ///< memory that was nobody's before; its content is undefined
    handed_out,  ///< an arena's memory; its content is undefined, and an earlier owner may still use it
    given_back   ///< an arena's or a buffer's memory; nobody may use it until it is handed out again
  };
  Kind kind = Kind::operation;
  std::int32_t queue = 0;      ///< index into `MetaTrace::queues()`; of memory: whose it is
  std::string_view operation;  ///< the operation's name; empty for other kinds
  Cost cost;
  std::int64_t event = 0;  ///< wait, host_wait: the event's index among the entries
  /// In the trace's list of tensors: `reads` that are read, then `writes` that are written. Memory that is
  /// allocated, handed out or given back counts as written.
  std::int64_t first_tensor = 0;
  std::int32_t reads = 0, writes = 0;
};

/// What a trace keeps: the sums by operation, or also every entry (about 64 bytes, and 64 more for each
/// tensor).
enum class Recording { tallies, everything };

/// What one rank's meta queues were given, in the host's program order. Together they stand for one GPU: they
/// share the trace's addresses and memory.
///
///   MetaTrace trace(Recording::everything);
///   MetaQueue compute(trace, "compute"), tensor(trace, "tensor");
///   ...                                                // the same code as on a GPU
///   EXPECT_THAT(find_races(trace), IsEmpty());         // race_checker.hpp
///   trace.operations().at("Matmul").cost.flops;
class MetaTrace {
 public:
  explicit MetaTrace(Recording recording = Recording::tallies) : recording_(recording) {}
  MetaTrace(const MetaTrace&) = delete;  // its queues and their events refer to it
  MetaTrace& operator=(const MetaTrace&) = delete;

  struct Tally {
    std::int64_t calls = 0;
    Cost cost;
  };
  using Tallies = std::map<std::string, Tally, std::less<>>;
  /// By operation, of all queues.
  const Tallies& operations() const { return operations_; }
  Cost total() const;
  /// Device memory of all queues; what unbounded arenas hand out is not in it.
  const MemoryUse& memory() const { return memory_; }

  std::span<const std::string> queues() const { return queues_; }
  std::span<const TraceEntry> entries() const { return entries_; }
  std::span<const Tensor> reads(const TraceEntry& entry) const;
  std::span<const Tensor> writes(const TraceEntry& entry) const;

  // For meta queues, which tell what they are given.

  /// The new queue's index.
  std::int32_t add_queue(std::string name);
  void add_operation(std::int32_t queue, std::string_view operation, const Cost& cost, const Access& access);
  /// The event's index among the entries; of no meaning where only tallies are kept.
  std::int64_t add_event(std::int32_t queue);
  /// `kind`: wait, of `queue`, or host_wait.
  void add_wait(TraceEntry::Kind kind, std::int32_t queue, std::int64_t event);
  /// `kind`: host_read, host_write, allocated, handed_out or given_back.
  void add_memory(TraceEntry::Kind kind, std::int32_t queue, const Tensor& tensor);
  /// Counts the memory and gives it addresses.
  std::byte* allocate(std::int32_t queue, std::int64_t bytes, MemoryKind kind);
  void release(std::int32_t queue, std::byte* data, std::int64_t bytes, MemoryKind kind);
  /// Addresses that no real memory has and nobody else was given, 256-byte aligned. Not counted.
  std::byte* reserve_addresses(std::int64_t bytes);

 private:
  TraceEntry& add(TraceEntry::Kind kind, std::int32_t queue);
  std::int32_t add_tensors(std::span<const Tensor> tensors);

  Recording recording_;
  Tallies operations_;
  MemoryUse memory_;
  std::vector<std::string> queues_;
  std::vector<TraceEntry> entries_;
  std::vector<Tensor> tensors_;
  std::uintptr_t next_address_ = std::uintptr_t{1} << 48;  ///< above every real address
};

}  // namespace verne
