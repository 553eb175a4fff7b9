#include "verne/data/context_shard.hpp"

#include <algorithm>

#include "verne/base/error.hpp"

namespace verne {
namespace {

/// The chunks of a row that a rank holds.
std::vector<std::int64_t> chunks_of(int rank, int ranks) {
  if (ranks == 1) return {0};
  return {rank, 2 * ranks - 1 - rank};
}

std::int64_t chunk_length(std::int64_t seq_length, int ranks) {
  if (ranks == 1) return seq_length;
  require(seq_length % (2 * ranks) == 0, "rows of {} tokens are not cut into {} chunks", seq_length,
          2 * ranks);
  return seq_length / (2 * ranks);
}

/// The pieces of documents that lie in chunk `chunk` of each row.
ContextShard::Part part_of(const MicroBatch& batch, const MicroBatchShape& shape, std::int64_t chunk,
                           std::int64_t length) {
  const auto capacity = static_cast<std::size_t>(shape.document_capacity);
  const auto keys = static_cast<std::int32_t>(batch.rows * batch.seq_length);
  ContextShard::Part part;
  part.query_starts.assign(capacity + 1, static_cast<std::int32_t>(batch.rows * length));
  part.key_begins.assign(capacity, keys);
  part.key_ends.assign(capacity, keys);
  std::size_t piece = 0;
  for (std::size_t d = 0; d + 1 < batch.document_starts.size(); ++d) {
    const std::int64_t begin = batch.document_starts[d], end = batch.document_starts[d + 1];
    if (begin == end) continue;
    const std::int64_t row = begin / batch.seq_length, chunk_begin = row * batch.seq_length + chunk * length;
    const std::int64_t first = std::max(begin, chunk_begin), last = std::min(end, chunk_begin + length);
    if (first >= last) continue;
    require(piece < capacity, "more than {} documents in a micro-batch", capacity);
    part.query_starts[piece] = static_cast<std::int32_t>(row * length + first - chunk_begin);
    part.key_begins[piece] = static_cast<std::int32_t>(begin);
    part.key_ends[piece] = static_cast<std::int32_t>(last);
    ++piece;
  }
  return part;
}

}  // namespace

ContextShard context_shard(const MicroBatch& batch, const MicroBatchShape& shape, int rank, int ranks) {
  const std::int64_t length = chunk_length(batch.seq_length, ranks);
  ContextShard shard;
  for (const std::int64_t chunk : chunks_of(rank, ranks)) {
    for (std::int64_t row = 0; row < batch.rows; ++row) {
      const std::int64_t first = row * batch.seq_length + chunk * length;
      const auto take = [&](auto& to, const auto& from) {
        to.insert(to.end(), from.begin() + first, from.begin() + first + length);
      };
      take(shard.tokens, batch.tokens);
      take(shard.targets, batch.targets);
      take(shard.positions, batch.positions);
      take(shard.loss_mask, batch.loss_mask);
    }
    shard.parts.push_back(part_of(batch, shape, chunk, length));
  }
  return shard;
}

std::vector<std::int32_t> context_order(std::int64_t rows, std::int64_t seq_length, int ranks) {
  const std::int64_t length = chunk_length(seq_length, ranks), tokens = rows * seq_length / ranks;
  std::vector<std::int32_t> places(static_cast<std::size_t>(rows * seq_length));
  for (int rank = 0; rank < ranks; ++rank) {
    std::int64_t place = rank * tokens;
    for (const std::int64_t chunk : chunks_of(rank, ranks))
      for (std::int64_t row = 0; row < rows; ++row)
        for (std::int64_t t = 0; t < length; ++t)
          places[static_cast<std::size_t>(row * seq_length + chunk * length + t)] =
              static_cast<std::int32_t>(place++);
  }
  return places;
}

}  // namespace verne
