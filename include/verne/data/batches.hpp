#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "verne/data/dataset.hpp"
#include "verne/data/micro_batch.hpp"
#include "verne/data/packing.hpp"
#include "verne/data/sampler.hpp"

namespace verne {

enum class Packing { no, yes };
/// What follows the last row.
enum class BatchesEnd {
  wrap,  ///< training: the next epoch
  stop   ///< validation: nothing; the last batch may be short
};

struct BatchOptions {
  std::int64_t seq_length = 0;         ///< that the dataset was cut to
  std::int64_t padded_seq_length = 0;  ///< at least seq_length; 0: the same
  Packing packing = Packing::yes;
  Shuffle shuffle = Shuffle::yes;
  BatchesEnd end = BatchesEnd::wrap;
  std::uint64_t seed = 0;
  std::int64_t micro_batch = 1;   ///< rows
  std::int64_t global_batch = 1;  ///< rows, a multiple of micro_batch · data_ranks
  std::int64_t data_rank = 0, data_ranks = 1;
};

/// What all ranks together train on in a step.
struct BatchCounts {
  std::int64_t rows = 0, documents = 0;
  std::int64_t real_tokens = 0;       ///< without padding
  std::int64_t counted_tokens = 0;    ///< targets
  std::vector<std::int64_t> lengths;  ///< of the documents
};

/// One data rank's share of a global batch.
struct StepBatch {
  std::int64_t counted_tokens = 0;  ///< of the global batch, over all data ranks
  std::int64_t micro_batches = 0;   ///< of this rank
  std::function<MicroBatch(std::int64_t)> micro_batch;
};

/// One data rank's micro-batches. The global batch of a step is a pure function of (seed, step): its rows
/// stand in order, and micro-batch a (from 0) of data rank d of D takes rows [m, m + 1)·micro_batch with m =
/// a·D + d.
class Batches {
 public:
  /// UserError where the dataset is empty.
  Batches(TokenDataset dataset, const BatchOptions& options);

  const TokenDataset& dataset() const { return dataset_; }
  const RowTable& rows() const { return rows_; }
  const MicroBatchShape& shape() const { return shape_; }  ///< of every micro-batch

  std::int64_t accumulation_steps() const;  ///< micro-batches a rank a step
  std::int64_t steps_for(double epochs) const { return sampler_.steps_for(epochs); }
  /// Steps that take every row once.
  std::int64_t steps_in_epoch() const { return sampler_.steps_for(1); }

  /// `step` from 1; with BatchesEnd::stop it is at most steps_in_epoch(). Must not outlive this object.
  StepBatch batch(std::int64_t step) const;
  /// Known to every rank without communication.
  BatchCounts counts(std::int64_t step) const;

 private:
  std::vector<std::int64_t> rows_of(std::int64_t step) const;
  MicroBatch micro_batch(std::span<const std::int64_t> rows, std::int64_t accumulation_step) const;

  BatchOptions options_;
  TokenDataset dataset_;
  RowTable rows_;
  Sampler sampler_;
  MicroBatchShape shape_;
};

}  // namespace verne
