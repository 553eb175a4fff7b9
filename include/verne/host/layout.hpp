#pragma once
#include <string>

#include "verne/host/options.hpp"
#include "verne/host/parallel_runtime.hpp"
#include "verne/nn/config.hpp"

namespace verne {

/// A deck's layout on a number of ranks, checked against the model before any weight is read.
struct DeckLayout {
  ParallelLayout parallel;
  /// A multiple of what rows are cut into: 2 · context chunks, each among the tensor ranks that share
  /// sequences.
  std::int64_t padded_seq_length = 0;
};
/// Throws UserError naming the keys, what was found and the nearest values that fit.
DeckLayout make_layout(const Deck& deck, const ModelConfig& model, int rank, int ranks);
/// Tokens that a row of `seq_length` has under a layout, padding included.
std::int64_t padded_length(const ParallelLayout& layout, std::int64_t seq_length);

/// Micro-batches of a data rank in a step. Throws UserError where they are not a whole number, with the
/// nearest global batches.
std::int64_t accumulation_steps(const TrainSection& train, const ParallelLayout& layout);

}  // namespace verne
