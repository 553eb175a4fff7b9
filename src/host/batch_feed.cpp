#include "verne/host/batch_feed.hpp"

#include <cstring>

#include "verne/base/checked.hpp"

namespace verne {
namespace {

using Lane = ParallelRuntime::Lane;

/// Blocks of pinned memory: so many micro-batches may the host be ahead of the device.
constexpr int kBlocks = 16;
constexpr std::int64_t kAlignment = 256;

template <class T>
void put(std::span<std::byte> block, std::int64_t at, const std::vector<T>& values) {
  std::memcpy(block.data() + at, values.data(), values.size() * sizeof(T));
}

}  // namespace

BatchFeed::BatchFeed(ParallelRuntime& runtime, const MicroBatchShape& shape, int buffers)
    : runtime_(runtime),
      shape_(shape),
      tokens_(runtime.layout().local_tokens(shape.rows * shape.seq_length)),
      places_(lay_out()) {
  Queue& queue = runtime.compute();
  for (int i = 0; i < buffers; ++i)
    buffers_.push_back({.memory = Buffer(queue, places_.bytes, MemoryKind::batch),
                        .log_probability = Buffer(queue, DType::f32, {tokens_}, MemoryKind::batch),
                        .arrived = {}});
  for (int i = 0; i < kBlocks; ++i)
    blocks_.push_back({.memory = HostBuffer(runtime.queue(Lane::upload), places_.bytes), .copied = {}});
  const int ranks = runtime.context().size();
  if (ranks == 1) return;
  const std::vector<std::int32_t> from_ranks = context_order(shape.rows, shape.seq_length, ranks);
  std::vector<std::int32_t> from_rows(from_ranks.size());
  for (std::size_t t = 0; t < from_ranks.size(); ++t)
    from_rows[static_cast<std::size_t>(from_ranks[t])] = static_cast<std::int32_t>(t);
  order_ = Buffer(queue, DType::i32, {2, key_tokens()}, MemoryKind::batch);
  from_ranks_ = order_.tensor().rows(0, 1).view({key_tokens()});
  from_rows_ = order_.tensor().rows(1, 1).view({key_tokens()});
  queue.upload(from_ranks_, std::span<const std::int32_t>(from_ranks));
  queue.upload(from_rows_, std::span<const std::int32_t>(from_rows));
}

BatchFeed::Places BatchFeed::lay_out() const {
  Places places;
  const auto take = [&](std::int64_t bytes) {
    const std::int64_t at = places.bytes;
    places.bytes += round_up(bytes, kAlignment);
    return at;
  };
  places.tokens = take(4 * tokens_);
  places.targets = take(4 * tokens_);
  places.positions = take(4 * tokens_);
  places.loss_mask = take(tokens_);
  if (shape_.table == DocumentTable::uniform) return places;
  const std::int64_t capacity = shape_.document_capacity;
  for (int part = 0; part < (runtime_.context().size() > 1 ? 2 : 1); ++part)
    places.parts.push_back({.query_starts = take(4 * (capacity + 1)),
                            .key_begins = take(4 * capacity),
                            .key_ends = take(4 * capacity)});
  return places;
}

void BatchFeed::start(int buffer, const MicroBatch& batch) {
  require(batch.rows == shape_.rows && batch.seq_length == shape_.seq_length,
          "a micro-batch of {} x {} tokens where {} x {} are expected", batch.rows, batch.seq_length,
          shape_.rows, shape_.seq_length);
  Block& block = blocks_[next_block_];
  next_block_ = (next_block_ + 1) % blocks_.size();
  block.copied.wait_on_host();
  Queue& upload = runtime_.queue(Lane::upload);
  const std::span<std::byte> bytes = block.memory.bytes();
  upload.host_access(bytes, Queue::HostAccess::write);
  const ContextShard shard =
      context_shard(batch, shape_, runtime_.context().rank(), runtime_.context().size());
  put(bytes, places_.tokens, shard.tokens);
  put(bytes, places_.targets, shard.targets);
  put(bytes, places_.positions, shard.positions);
  put(bytes, places_.loss_mask, shard.loss_mask);
  for (std::size_t i = 0; i < places_.parts.size(); ++i) {
    put(bytes, places_.parts[i].query_starts, shard.parts[i].query_starts);
    put(bytes, places_.parts[i].key_begins, shard.parts[i].key_begins);
    put(bytes, places_.parts[i].key_ends, shard.parts[i].key_ends);
  }
  Buffered& to = buffers_[static_cast<std::size_t>(buffer)];
  if (&upload != &runtime_.compute()) upload.wait(runtime_.compute().record());
  upload.copy_from_host(to.memory.tensor(), bytes);
  to.arrived = upload.record();
  block.copied = upload.record();
}

Tensor BatchFeed::place(const Buffered& buffer, std::int64_t at, DType type, std::int64_t count) const {
  return Tensor(buffer.memory.data() + at, type, {count});
}

std::vector<AttentionPart> BatchFeed::attention_parts(const Buffered& buffer) const {
  const int ranks = runtime_.context().size(), rank = runtime_.context().rank();
  const std::int64_t rows = shape_.rows, seq_length = shape_.seq_length;
  const std::int64_t length = ranks == 1 ? seq_length : seq_length / (2 * ranks);  // of a chunk
  std::vector<AttentionPart> parts;
  for (int i = 0; i < (ranks == 1 ? 1 : 2); ++i) {
    const std::int64_t chunk = i == 0 ? rank : 2 * ranks - 1 - rank;
    AttentionPart part{.first = i * rows * length, .count = rows * length, .layout = {}};
    if (shape_.table == DocumentTable::uniform) {
      part.layout.query = uniform_documents(rows, length);
      part.layout.key = {.kind = DocumentLayout::Kind::uniform,
                         .count = rows,
                         .max_length = (chunk + 1) * length,
                         .pitch = seq_length,
                         .begins = {},
                         .ends = {}};
    } else {
      const std::int64_t capacity = shape_.document_capacity;
      const Places::Part& at = places_.parts[static_cast<std::size_t>(i)];
      part.layout.query = packed_documents(place(buffer, at.query_starts, DType::i32, capacity + 1), length);
      part.layout.key = part.layout.query;
      if (ranks > 1)
        part.layout.key = {.kind = DocumentLayout::Kind::packed,
                           .count = capacity,
                           .max_length = (chunk + 1) * length,
                           .pitch = 0,
                           .begins = place(buffer, at.key_begins, DType::i32, capacity),
                           .ends = place(buffer, at.key_ends, DType::i32, capacity)};
    }
    parts.push_back(part);
  }
  return parts;
}

DeviceBatch BatchFeed::ready(int buffer) {
  const Buffered& from = buffers_[static_cast<std::size_t>(buffer)];
  runtime_.compute().wait(from.arrived);
  return {.token_count = tokens_,
          .key_count = key_tokens(),
          .tokens = place(from, places_.tokens, DType::i32, tokens_),
          .targets = place(from, places_.targets, DType::i32, tokens_),
          .positions = place(from, places_.positions, DType::i32, tokens_),
          .loss_mask = place(from, places_.loss_mask, DType::u8, tokens_),
          .attention = attention_parts(from),
          .loss_scale = {},
          .loss_sum = {},
          .log_probability = from.log_probability.tensor()};
}

}  // namespace verne
