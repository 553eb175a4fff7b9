#pragma once
#include <string>

#include "verne/comm/process_grid.hpp"
#include "verne/nn/config.hpp"
#include "verne/nn/step.hpp"
#include "verne/train/options.hpp"

namespace verne {

/// A deck's layout on a number of ranks, checked against the model and the batch before any weight is read.
struct TrainLayout {
  ProcessGrid grid;
  TensorParallel::Sequence sequence = TensorParallel::Sequence::whole;
  std::int64_t padded_seq_length = 0;  ///< a multiple of the tensor ranks where the sequence is cut
  std::int64_t accumulation_steps = 0;
};

/// Throws UserError naming the keys, what was found and the nearest values that fit.
TrainLayout make_layout(const Deck& deck, const ModelConfig& model, int rank, int ranks);
/// The grid and sequence setting alone, for verbs without a batch.
TrainLayout make_layout_without_batch(const Deck& deck, const ModelConfig& model, int rank, int ranks);

}  // namespace verne
