#pragma once
#include <exception>
#include <future>
#include <map>
#include <memory>
#include <vector>

#include "part_memory.hpp"
#include "verne/comm/host_messages.hpp"
#include "verne/io/block_plan.hpp"

namespace verne {

/// Carries a ReadPlan out: reads this rank's blocks one ahead, sends their elements to those who want them,
/// and puts into local memory what is wanted here. Every rank takes blocks in ascending order and waits for
/// the oldest alone, so no two wait for each other; memory stays under about 150 MiB.
class BlockExchange {
 public:
  BlockExchange(const TensorSource& source, const HostGroup& group, Queue& queue, const PartBlocks& wanted,
                const ReadPlan& plan);

  /// Every rank of the group runs. What went wrong on this rank: the others got all their messages, of
  /// undefined content where they came from here.
  std::exception_ptr run();

 private:
  struct Bytes {
    std::unique_ptr<std::byte[]> data;
    std::int64_t size = 0;
    std::span<std::byte> all() const { return {data.get(), static_cast<std::size_t>(size)}; }
  };
  /// A block that was read here and is on its way to others.
  struct Held {
    Bytes block;
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

  /// Memory for a block, of which the same few pieces are used again and again.
  Bytes block_memory(std::int64_t block);
  void give_back(Bytes block);
  void begin_reading();
  Bytes take_block(std::int64_t block);
  void send_block(const ReadPlan::Read& read, Bytes block);
  void receive_block(const ReadPlan::Receive& receive);
  void settle(const std::vector<std::int64_t>& finished);
  void arrived(const Receiving& receiving);
  template <class Work>
  void attempt(const Work& work);

  const TensorSource& source_;
  const HostGroup& group_;
  const PartBlocks& wanted_;
  const ReadPlan& plan_;
  PartMemory memory_;
  HostMessages messages_;
  std::exception_ptr failure_;

  std::size_t next_read_ = 0;  ///< to be begun
  std::future<Bytes> reading_;
  std::vector<Bytes> spare_;
  std::map<std::int64_t, Sending> sends_;       ///< by message
  std::map<std::int64_t, Receiving> receives_;  ///< by message
  std::int64_t blocks_held_ = 0, packed_bytes_ = 0, receiving_bytes_ = 0;
};

}  // namespace verne
