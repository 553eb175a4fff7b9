#include "verne/host/layout.hpp"

#include "verne/base/checked.hpp"
#include "verne/nn/model.hpp"

namespace verne {
namespace {

/// A stage holds at least a chunk; the first and the last chunk may be the embedding and the head alone.
void check_pipeline(const ParallelSection& parallel, const ModelConfig& model) {
  const std::int64_t stages = parallel.pipeline, chunks = parallel.virtual_pipeline;
  require_user(
      chunks == 1 || stages > 1,
      "parallel.virtual_pipeline = {} cuts each pipeline stage into chunks, but parallel.pipeline is 1. "
      "Set it to 1, or parallel.pipeline to 2 or more.",
      chunks);
  const std::int64_t most = model.layers + 2;
  if (checked_multiply(stages, chunks).value_or(most + 1) <= most) return;
  if (stages > most)
    throw_user_error(
        "parallel.pipeline = {}: a model of {} layers has at most {} stages, of which the first and the last "
        "hold the embedding and the head alone; the nearest that fits is {}",
        stages, model.layers, most, most);
  throw_user_error(
      "parallel.pipeline = {} × parallel.virtual_pipeline = {}: a model of {} layers has at most {} chunks; "
      "the nearest that fits is parallel.virtual_pipeline = {}",
      stages, chunks, model.layers, most, most / stages);
}

}  // namespace

std::int64_t padded_length(const ParallelLayout& layout, std::int64_t seq_length) {
  const ParallelSizes& sizes = layout.grid.sizes();
  const std::int64_t tensor = layout.sequence == TensorParallel::Sequence::sharded ? sizes.tensor : 1;
  return round_up(seq_length, sizes.context > 1 ? 2 * sizes.context * tensor : tensor);
}

DeckLayout make_layout(const Deck& deck, const ModelConfig& model, int rank, int ranks) {
  const ParallelSection& parallel = deck.parallel;
  for (const auto& [key, size] :
       {std::pair{"tensor", parallel.tensor}, {"pipeline", parallel.pipeline}, {"context", parallel.context}})
    require_user(size <= ranks, "parallel.{} = {} on {} ranks: it is at most the number of ranks", key, size,
                 ranks);
  check_layout(model, static_cast<int>(parallel.tensor));
  check_pipeline(parallel, model);
  DeckLayout layout{.parallel = {.grid = ProcessGrid(rank, ranks,
                                                     {.tensor = static_cast<int>(parallel.tensor),
                                                      .context = static_cast<int>(parallel.context),
                                                      .pipeline = static_cast<int>(parallel.pipeline)}),
                                 .chunks = static_cast<int>(parallel.virtual_pipeline)}};
  if (parallel.tensor > 1 && parallel.sequence != Sequence::off)
    layout.parallel.sequence = TensorParallel::Sequence::sharded;
  layout.padded_seq_length = padded_length(layout.parallel, deck.data.seq_length);
  return layout;
}

std::int64_t accumulation_steps(const TrainSection& train, const ParallelLayout& layout) {
  const std::int64_t data = layout.grid.sizes().data, unit = train.micro_batch * data;
  if (train.global_batch % unit == 0) return train.global_batch / unit;
  const std::int64_t below = train.global_batch / unit * unit, above = below + unit;
  throw_user_error(
      "train.global_batch = {} is not a multiple of train.micro_batch {} × {} data ranks = {}; the nearest "
      "that are: {}{}",
      train.global_batch, train.micro_batch, data, unit, below > 0 ? fmt::format("{} and ", below) : "",
      above);
}

}  // namespace verne
