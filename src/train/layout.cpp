#include "verne/train/layout.hpp"

#include "verne/base/checked.hpp"
#include "verne/nn/model.hpp"

namespace verne {

TrainLayout make_layout_without_batch(const Deck& deck, const ModelConfig& model, int rank, int ranks) {
  const ParallelSection& parallel = deck.parallel;
  require_user(parallel.tensor <= ranks,
               "parallel.tensor = {} on {} ranks: it is at most the number of ranks", parallel.tensor, ranks);
  const int tensor = static_cast<int>(parallel.tensor);
  check_layout(model, tensor);
  TrainLayout layout{.grid = ProcessGrid(rank, ranks, {.tensor = tensor})};
  if (tensor > 1 && parallel.sequence != Sequence::off) layout.sequence = TensorParallel::Sequence::sharded;
  const bool sharded = layout.sequence == TensorParallel::Sequence::sharded;
  layout.padded_seq_length =
      sharded ? round_up<std::int64_t>(deck.data.seq_length, tensor) : deck.data.seq_length;
  return layout;
}

TrainLayout make_layout(const Deck& deck, const ModelConfig& model, int rank, int ranks) {
  TrainLayout layout = make_layout_without_batch(deck, model, rank, ranks);
  const std::int64_t data = layout.grid.sizes().data, unit = deck.train.micro_batch * data;
  if (deck.train.global_batch % unit != 0) {
    const std::int64_t below = deck.train.global_batch / unit * unit, above = below + unit;
    throw_user_error(
        "train.global_batch = {} is not a multiple of train.micro_batch {} × {} data ranks = {}; the nearest "
        "that are: {}{}",
        deck.train.global_batch, deck.train.micro_batch, data, unit,
        below > 0 ? fmt::format("{} and ", below) : "", above);
  }
  layout.accumulation_steps = deck.train.global_batch / unit;
  return layout;
}

}  // namespace verne
