#include "block_exchange.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "verne/base/error.hpp"

namespace verne {
namespace {

/// Blocks read here whose messages are under way.
constexpr std::int64_t kBlocksHeld = 3;
/// Elements picked out of them for others, and what is expected from others: at least one message of each.
constexpr std::int64_t kPackedBytes = std::int64_t{32} << 20, kReceivingBytes = std::int64_t{32} << 20;
/// Messages move on while a block is being read.
constexpr std::chrono::microseconds kPollInterval{200};

/// The wanted elements one after the other.
void pack(std::span<const std::byte> block, DType dtype, const BlockRequest& request,
          std::span<std::byte> to) {
  std::size_t at = 0;
  for (const BlockRanges& ranges : request.ranges) {
    const auto length = static_cast<std::size_t>(bytes_of(dtype, ranges.length));
    for (std::int64_t i = 0; i < ranges.count; ++i, at += length) {
      const auto begin = static_cast<std::size_t>(bytes_of(dtype, ranges.begin + i * ranges.stride));
      std::memcpy(to.data() + at, block.data() + begin, length);
    }
  }
}

}  // namespace

BlockExchange::BlockExchange(const TensorSource& source, const HostGroup& group, Queue& queue,
                             const PartBlocks& wanted, const ReadPlan& plan)
    : source_(source),
      group_(group),
      wanted_(wanted),
      plan_(plan),
      memory_(queue, wanted),
      messages_(group) {}

/// Runs `work` and keeps its exception: the exchange must go on meanwhile.
template <class Work>
void BlockExchange::attempt(const Work& work) {
  if (failure_) return;
  try {
    work();
  } catch (...) {
    failure_ = std::current_exception();
  }
}

std::exception_ptr BlockExchange::run() {
  begin_reading();
  auto receive = plan_.receives.begin();
  for (const ReadPlan::Read& read : plan_.reads) {
    for (; receive != plan_.receives.end() && receive->block < read.block; ++receive) receive_block(*receive);
    while (blocks_held_ >= kBlocksHeld) settle(messages_.wait());
    Bytes block = take_block(read.block);
    begin_reading();
    send_block(read, std::move(block));
  }
  for (; receive != plan_.receives.end(); ++receive) receive_block(*receive);
  while (messages_.under_way() > 0) settle(messages_.wait());
  return failure_;
}

BlockExchange::Bytes BlockExchange::block_memory(std::int64_t block) {
  Bytes memory;
  if (spare_.empty()) {
    memory.data = std::make_unique_for_overwrite<std::byte[]>(kBlockBytes);
  } else {
    memory = std::move(spare_.back());
    spare_.pop_back();
  }
  const BlockIndex::Place place = wanted_.index().place(block);
  memory.size = block_bytes(wanted_.index().tensors()[place.tensor], place.block);
  return memory;
}

void BlockExchange::give_back(Bytes block) {
  spare_.push_back(std::move(block));
}

void BlockExchange::begin_reading() {
  if (next_read_ == plan_.reads.size()) return;
  const std::int64_t block = plan_.reads[next_read_++].block;
  const auto read = [this, block, wanted = !failure_](Bytes to) {
    const BlockIndex::Place place = wanted_.index().place(block);
    if (wanted) source_.read_block(wanted_.index().tensors()[place.tensor], place.block, to.all());
    return to;
  };
  reading_ = std::async(std::launch::async, read, block_memory(block));
}

BlockExchange::Bytes BlockExchange::take_block(std::int64_t block) {
  while (messages_.under_way() > 0 && reading_.wait_for(kPollInterval) != std::future_status::ready)
    settle(messages_.finished());
  Bytes read;
  attempt([&] { read = reading_.get(); });
  return read.data ? std::move(read) : block_memory(block);
}

void BlockExchange::send_block(const ReadPlan::Read& read, Bytes block) {
  const BlockIndex::Place place = wanted_.index().place(read.block);
  const DType dtype = wanted_.index().tensors()[place.tensor].dtype;
  attempt([&] {
    memory_.scatter(wanted_.segments(read.block), dtype, block.all(), Packing::in_block, place.begin);
  });
  if (read.requests.empty()) return give_back(std::move(block));
  const auto held = std::make_shared<Held>(Held{std::move(block), std::ssize(read.requests)});
  ++blocks_held_;
  for (const BlockRequest& request : read.requests) {
    const std::int64_t bytes = bytes_of(dtype, elements_of(request));
    Sending sending{held, {}};
    std::span<const std::byte> content;
    if (request.ranges.size() == 1 && request.ranges[0].count == 1) {
      content = held->block.all().subspan(static_cast<std::size_t>(bytes_of(dtype, request.ranges[0].begin)),
                                          static_cast<std::size_t>(bytes));
    } else {
      while (packed_bytes_ > 0 && packed_bytes_ + bytes > kPackedBytes) settle(messages_.wait());
      sending.packed = {std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(bytes)), bytes};
      packed_bytes_ += bytes;
      pack(held->block.all(), dtype, request, sending.packed.all());
      content = sending.packed.all();
    }
    sends_.emplace(messages_.send(request.rank, content), std::move(sending));
  }
}

void BlockExchange::receive_block(const ReadPlan::Receive& receive) {
  const TensorInfo& tensor = wanted_.index().tensor_of(receive.block);
  std::int64_t elements = 0;
  for (const Segment& segment : wanted_.segments(receive.block)) elements += segment.length;
  const std::int64_t bytes = bytes_of(tensor.dtype, elements);
  while (!receives_.empty() && receiving_bytes_ + bytes > kReceivingBytes) settle(messages_.wait());
  Receiving receiving{receive.block,
                      {std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(bytes)), bytes}};
  const std::int64_t message = messages_.receive(receive.reader, receiving.bytes.all());
  receives_.emplace(message, std::move(receiving));
  receiving_bytes_ += bytes;
}

void BlockExchange::settle(const std::vector<std::int64_t>& finished) {
  for (const std::int64_t message : finished) {
    if (const auto send = sends_.find(message); send != sends_.end()) {
      packed_bytes_ -= send->second.packed.size;
      if (Held& held = *send->second.held; --held.messages == 0) {
        --blocks_held_;
        give_back(std::move(held.block));
      }
      sends_.erase(send);
    } else {
      const auto receive = receives_.find(message);
      require(receive != receives_.end(), "message {} is unknown", message);
      arrived(receive->second);
      receiving_bytes_ -= receive->second.bytes.size;
      receives_.erase(receive);
    }
  }
}

void BlockExchange::arrived(const Receiving& receiving) {
  const BlockIndex::Place place = wanted_.index().place(receiving.block);
  attempt([&] {
    memory_.scatter(wanted_.segments(receiving.block), wanted_.index().tensors()[place.tensor].dtype,
                    receiving.bytes.all(), Packing::one_after_another, place.begin);
  });
}

}  // namespace verne
