#pragma once
#include <exception>
#include <map>
#include <memory>
#include <vector>

#include "part_memory.hpp"
#include "read_ahead.hpp"
#include "verne/comm/host_messages.hpp"
#include "verne/io/block_plan.hpp"

namespace verne {

/// Carries a ReadPlan out: reads this rank's blocks ahead, sends their elements to those who want them,
/// and puts into local memory what is wanted here. Every rank takes blocks in ascending order and waits for
/// the oldest alone, so no two wait for each other; memory stays under about 150 MiB.
class BlockExchange {
 public:
  /// The source gives blocks of the index.
  BlockExchange(ReadAhead::Source source, const HostGroup& group, Queue& queue, const PartBlocks& wanted,
                const ReadPlan& plan);

  /// Every rank of the group runs. What went wrong on this rank: the others got all their messages, of
  /// undefined content where they came from here.
  std::exception_ptr run();

 private:
  struct Bytes {
    std::unique_ptr<std::byte[]> data;
    std::int64_t size = 0, capacity = 0;
    std::span<std::byte> all() const { return {data.get(), static_cast<std::size_t>(size)}; }
  };
  /// A block that was read here and is on its way to others.
  struct Held {
    std::unique_ptr<std::byte[]> block;
    std::int64_t messages = 0;  ///< not finished yet
  };
  struct Sending {
    std::shared_ptr<Held> held;
    Bytes packed;  ///< none where the message lies in the block itself
  };
  struct Receiving {
    std::int64_t block;
    Bytes bytes;
  };

  /// Memory of which the same few pieces are used again and again: new memory costs more than what is done
  /// with it.
  Bytes take_memory(std::int64_t size);
  void give_back(Bytes memory);
  /// Where a block's bytes may be read to at once: it is wanted here alone, in one piece as it is stored.
  std::span<std::byte> place_in_local_memory(const ReadPlan::Read& read, bool host_memory) const;
  std::vector<ReadAhead::Item> items_to_read(bool host_memory) const;
  void send_block(const ReadPlan::Read& read, std::unique_ptr<std::byte[]> block);
  void receive_block(const ReadPlan::Receive& receive);
  void settle(const std::vector<std::int64_t>& finished);
  void arrived(const Receiving& receiving);
  template <class Work>
  void attempt(const Work& work);

  const PartBlocks& wanted_;
  const ReadPlan& plan_;
  PartMemory memory_;
  HostMessages messages_;
  std::exception_ptr failure_;

  std::vector<Bytes> spare_;
  std::map<std::int64_t, Sending> sends_;       ///< by message
  std::map<std::int64_t, Receiving> receives_;  ///< by message
  std::int64_t packed_bytes_ = 0, receiving_bytes_ = 0;
  ReadAhead reading_;
};

}  // namespace verne
