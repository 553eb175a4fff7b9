#include "verne/nn/embedding.hpp"

#include <algorithm>

#include "verne/base/checked.hpp"
#include "verne/nn/linear.hpp"
#include "verne/ops/embedding.hpp"
#include "verne/ops/run.hpp"

namespace verne {

VocabularyBlock vocabulary_block(std::int64_t vocabulary, int rank, int ranks) {
  const std::int64_t rows = round_up<std::int64_t>(divide_round_up<std::int64_t>(vocabulary, ranks), 16);
  const std::int64_t first = rank * rows;
  return {.first = first, .rows = rows, .valid = std::clamp<std::int64_t>(vocabulary - first, 0, rows)};
}

void Embedding::forward(Step& step, const Tensor& y) const {
  const ArenaScope scope(step.scratch);
  const Tensor partial =
      step.tensor.shards_sequence() ? step.temporary(y.dtype(), {step.tokens(), y.size(1)}) : y;
  run(step.queue, EmbeddingForward{.y = partial,
                                   .weight = step.weight(weight).data,
                                   .tokens = step.batch.tokens,
                                   .first_row = block.first});
  reduce_to_stream(step, y, partial);  // one rank holds each row, the others gave zeros: the sum is exact
}

void Embedding::backward(Step& step, const Tensor& dy) const {
  if (!weight.trainable) return;
  const ArenaScope scope(step.scratch);
  const Gradient gradient = step.grad(weight);
  run(step.queue, EmbeddingBackward{.dweight = gradient.tensor,
                                    .accumulate = gradient.accumulate,
                                    .dy = gather_stream(step, dy).data,
                                    .tokens = step.batch.tokens,
                                    .first_row = block.first});
  step.grad_done(weight);
}

Parameter vocabulary_parameter(const ModelConfig& config, const TensorParallel& tensor,
                               const std::string& name) {
  const VocabularyBlock block = vocabulary_block(config.vocab_size, tensor.rank(), tensor.size());
  Parameter weight;
  weight.name = name;
  weight.shape = {block.rows, config.hidden_size};
  weight.slices = {{.name = name,
                    .shape = {config.vocab_size, config.hidden_size},
                    .runs = row_block(block.first, block.valid, config.hidden_size, 0),
                    .init_deviation = config.initializer_range}};
  return weight;
}

Embedding make_embedding(const ModelConfig& config, const TensorParallel& tensor) {
  return {.weight = vocabulary_parameter(config, tensor, kEmbeddingName),
          .block = vocabulary_block(config.vocab_size, tensor.rank(), tensor.size())};
}

}  // namespace verne
