#include "block_exchange.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

/// Blocks that are being read, that wait for their turn, or whose messages are under way.
constexpr std::size_t kBlocks = 5;
/// Elements picked out of them for others, and what is expected from others: at least one message of each.
constexpr std::int64_t kPackedBytes = std::int64_t{32} << 20, kReceivingBytes = std::int64_t{32} << 20;
/// Sizes of memory, so that one piece serves for many.
constexpr std::int64_t kMemoryStep = std::int64_t{256} << 10;
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

BlockExchange::BlockExchange(ReadAhead::Source source, const HostGroup& group, Queue& queue,
                             const PartBlocks& wanted, const ReadPlan& plan)
    : wanted_(wanted),
      plan_(plan),
      memory_(queue, wanted),
      messages_(group),
      reading_(std::move(source), items_to_read(queue.kind() == QueueKind::cpu), kBlocks) {}

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
  auto receive = plan_.receives.begin();
  for (const ReadPlan::Read& read : plan_.reads) {
    for (; receive != plan_.receives.end() && receive->block < read.block; ++receive) receive_block(*receive);
    while (messages_.under_way() > 0 && !reading_.ready(kPollInterval)) settle(messages_.finished());
    send_block(read, reading_.take());
  }
  for (; receive != plan_.receives.end(); ++receive) receive_block(*receive);
  while (messages_.under_way() > 0) settle(messages_.wait());
  return failure_ ? failure_ : reading_.failure();
}

BlockExchange::Bytes BlockExchange::take_memory(std::int64_t size) {
  // The smallest that is large enough.
  auto best = spare_.end();
  for (auto spare = spare_.begin(); spare != spare_.end(); ++spare)
    if (spare->capacity >= size && (best == spare_.end() || spare->capacity < best->capacity)) best = spare;
  Bytes memory;
  if (best == spare_.end()) {
    memory.capacity = round_up(size, kMemoryStep);
    memory.data = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(memory.capacity));
  } else {
    memory = std::move(*best);
    spare_.erase(best);
  }
  memory.size = size;
  return memory;
}

void BlockExchange::give_back(Bytes memory) {
  if (memory.data) spare_.push_back(std::move(memory));
}

std::span<std::byte> BlockExchange::place_in_local_memory(const ReadPlan::Read& read,
                                                          bool host_memory) const {
  if (!host_memory || !read.requests.empty()) return {};
  const BlockIndex::Place place = wanted_.index().place(read.block);
  const std::vector<Segment> segments = wanted_.segments(read.block);
  const DType dtype = wanted_.index().tensors()[place.tensor].dtype;
  if (segments.size() != 1 || segments[0].length != place.elements()) return {};
  const Tensor& local = wanted_.parts()[segments[0].part].local;
  if (local.dtype() != dtype) return {};
  return {local.raw() + bytes_of(dtype, segments[0].local),
          static_cast<std::size_t>(bytes_of(dtype, segments[0].length))};
}

std::vector<ReadAhead::Item> BlockExchange::items_to_read(bool host_memory) const {
  std::vector<ReadAhead::Item> items;
  for (const ReadPlan::Read& read : plan_.reads) {
    const BlockIndex::Place place = wanted_.index().place(read.block);
    items.push_back({place, block_bytes(wanted_.index().tensors()[place.tensor], place.block),
                     place_in_local_memory(read, host_memory)});
  }
  return items;
}

void BlockExchange::send_block(const ReadPlan::Read& read, std::unique_ptr<std::byte[]> memory) {
  if (!memory) return;  // it is in its place already
  const BlockIndex::Place place = wanted_.index().place(read.block);
  const TensorInfo& tensor = wanted_.index().tensors()[place.tensor];
  const DType dtype = tensor.dtype;
  const std::span<std::byte> block(memory.get(), static_cast<std::size_t>(block_bytes(tensor, place.block)));
  attempt([&] {
    if (!reading_.failure())
      memory_.scatter(wanted_.segments(read.block), dtype, block, Packing::in_block, place.begin);
  });
  if (read.requests.empty()) return reading_.give_back(std::move(memory));
  const auto held = std::make_shared<Held>(Held{std::move(memory), std::ssize(read.requests)});
  for (const BlockRequest& request : read.requests) {
    const std::int64_t bytes = bytes_of(dtype, elements_of(request));
    Sending sending{held, {}};
    std::span<const std::byte> content;
    if (request.ranges.size() == 1 && request.ranges[0].count == 1) {
      content = block.subspan(static_cast<std::size_t>(bytes_of(dtype, request.ranges[0].begin)),
                              static_cast<std::size_t>(bytes));
    } else {
      while (packed_bytes_ > 0 && packed_bytes_ + bytes > kPackedBytes) settle(messages_.wait());
      sending.packed = take_memory(bytes);
      packed_bytes_ += bytes;
      pack(block, dtype, request, sending.packed.all());
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
  Receiving receiving{receive.block, take_memory(bytes)};
  const std::int64_t message = messages_.receive(receive.reader, receiving.bytes.all());
  receives_.emplace(message, std::move(receiving));
  receiving_bytes_ += bytes;
}

void BlockExchange::settle(const std::vector<std::int64_t>& finished) {
  for (const std::int64_t message : finished) {
    if (const auto send = sends_.find(message); send != sends_.end()) {
      packed_bytes_ -= send->second.packed.size;
      give_back(std::move(send->second.packed));
      if (Held& held = *send->second.held; --held.messages == 0) reading_.give_back(std::move(held.block));
      sends_.erase(send);
    } else {
      const auto receive = receives_.find(message);
      require(receive != receives_.end(), "message {} is unknown", message);
      arrived(receive->second);
      receiving_bytes_ -= receive->second.bytes.size;
      give_back(std::move(receive->second.bytes));
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
