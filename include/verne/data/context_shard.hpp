#pragma once
#include <cstdint>
#include <vector>

#include "verne/data/micro_batch.hpp"

namespace verne {

// Context parallelism among C ranks cuts every row of a micro-batch into 2·C chunks of equal length. Rank r
// holds chunk r and chunk 2·C − 1 − r of each row: under a causal mask all ranks then have the same work. A
// rank's tokens stand chunk after chunk: the first chunks of all rows, then the second ones.

/// One rank's share of a micro-batch of `rows` rows, tokens = rows · seq_length / C.
struct ContextShard {
  std::vector<std::int32_t> tokens, targets, positions;  ///< [tokens]
  std::vector<std::uint8_t> loss_mask;                   ///< [tokens]

  /// Documents as attention takes them, for one chunk of each row: piece i is the chunk's tokens
  /// [query_starts[i], query_starts[i + 1]), which see the micro-batch's tokens [key_begins[i], key_ends[i]),
  /// aligned at the end. As many as the shape has room for; pieces of no tokens fill up.
  struct Part {
    std::vector<std::int32_t> query_starts;          ///< [capacity + 1]
    std::vector<std::int32_t> key_begins, key_ends;  ///< [capacity]
  };
  std::vector<Part> parts;  ///< one where C is 1, else two
};
/// InternalError where the sequence length is no multiple of 2·C.
ContextShard context_shard(const MicroBatch& batch, const MicroBatchShape& shape, int rank, int ranks);

/// The place, among all ranks' tokens in rank order, of each of the micro-batch's tokens: [rows ·
/// seq_length].
std::vector<std::int32_t> context_order(std::int64_t rows, std::int64_t seq_length, int ranks);

}  // namespace verne
