#pragma once
#include <string>
#include <vector>

#include "verne/io/tensor_part.hpp"
#include "verne/tensor/tensor.hpp"

namespace verne {

/// One logical tensor inside a parameter's buffer.
struct ParameterSlice {
  std::string name;  ///< Hugging Face name
  Shape shape;       ///< logical
  std::vector<ElementRuns>
      runs;  ///< which logical elements this rank holds, and where in the parameter's buffer
  double init_mean = 0, init_deviation = 0;
};

/// How a gradient must be completed among tensor ranks before it is reduced over data ranks.
enum class TensorGradient {
  complete,    ///< the rank's own rows or columns, or the same on every rank
  partial,     ///< every tensor rank holds the whole parameter and saw a part of the tokens or heads: sum
  kv_replicas  ///< rows from `replicated_row` on are held by several neighbouring tensor ranks: sum among
               ///< those
};

/// A kernel-shaped buffer with named slices. The engine gives it memory; layers reach it through Step.
struct Parameter {
  std::string name;  ///< for messages: "layers.3.qkv"
  Shape shape;       ///< of this rank's buffer
  std::vector<ParameterSlice> slices;
  TensorGradient tensor_gradient = TensorGradient::complete;
  std::int64_t replicated_row = 0;
  bool held_by_all_tensor_ranks = false;  ///< the gradient norm counts it once
  bool trainable = true;
  int uses = 1;    ///< gradient writers a micro-batch: 2 for tied embeddings
  int index = -1;  ///< its place in the parameter store

  bool decays() const { return shape.rank() >= 2; }
};

/// The runs of rows [first, first + count) of a matrix of `width` columns, placed from local row `local_row`
/// on.
std::vector<ElementRuns> row_block(std::int64_t first, std::int64_t count, std::int64_t width,
                                   std::int64_t local_row);
/// The runs of columns [first, first + count) of all `rows` rows of a matrix of `width` columns; locally
/// contiguous.
std::vector<ElementRuns> column_block(std::int64_t rows, std::int64_t width, std::int64_t first,
                                      std::int64_t count);

/// The part of `runs` whose local elements lie in [begin, end), with local offsets shifted by `shift`.
std::vector<ElementRuns> clip_runs(const std::vector<ElementRuns>& runs, std::int64_t begin, std::int64_t end,
                                   std::int64_t shift);

}  // namespace verne
