#pragma once
#include <vector>

#include "verne/data/context_shard.hpp"
#include "verne/host/parallel_runtime.hpp"
#include "verne/nn/step.hpp"

namespace verne {

/// Micro-batches on their way to the device: each is packed into one block of pinned memory and copied at
/// once, beside the computation. Owns the device's buffers, which are numbered as a schedule numbers them.
class BatchFeed {
 public:
  /// `shape` of every micro-batch; `buffers` of them on the device at a time.
  BatchFeed(ParallelRuntime& runtime, const MicroBatchShape& shape, int buffers);

  /// Sends this rank's share of a micro-batch to a buffer, behind all that the compute queue was given so
  /// far. Waits only where the host is as many micro-batches ahead of the device as it has blocks.
  void start(int buffer, const MicroBatch& batch);
  /// The micro-batch in a buffer, usable on the compute queue from here on. loss_scale and loss_sum are
  /// empty.
  DeviceBatch ready(int buffer);

  /// The shard's tokens of this rank, and those of all context ranks.
  std::int64_t tokens() const { return tokens_; }
  std::int64_t key_tokens() const { return shape_.rows * shape_.seq_length; }
  /// The row permutations of context parallelism; empty without it.
  const Tensor& from_ranks() const { return from_ranks_; }
  const Tensor& from_rows() const { return from_rows_; }

 private:
  /// Where things lie in a block, in bytes.
  struct Places {
    std::int64_t tokens = 0, targets = 0, positions = 0, loss_mask = 0, bytes = 0;
    struct Part {
      std::int64_t query_starts = 0, key_begins = 0, key_ends = 0;
    };
    std::vector<Part> parts;
  };
  struct Buffered {
    Buffer memory, log_probability;
    Event arrived;
  };
  struct Block {
    HostBuffer memory;
    Event copied;
  };
  Places lay_out() const;
  std::vector<AttentionPart> attention_parts(const Buffered& buffer) const;
  Tensor place(const Buffered& buffer, std::int64_t at, DType type, std::int64_t count) const;

  ParallelRuntime& runtime_;
  MicroBatchShape shape_;
  std::int64_t tokens_;
  Places places_;
  std::vector<Buffered> buffers_;
  std::vector<Block> blocks_;
  std::size_t next_block_ = 0;
  Buffer order_;
  Tensor from_ranks_, from_rows_;
};

}  // namespace verne
