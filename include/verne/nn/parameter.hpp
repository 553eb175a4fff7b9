#pragma once
#include <string>
#include <vector>

#include "verne/io/tensor_part.hpp"
#include "verne/nn/placement.hpp"
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

/// A kernel-shaped buffer with named slices. A ParameterStore gives it memory; layers reach it through Step.
struct Parameter {
  std::string name;  ///< for messages: "model.layers.3.self_attn.qkv"
  Shape shape;       ///< of this rank's buffer
  std::vector<ParameterSlice> slices;
  Placement placement;
  bool trainable = true;
  int uses = 1;            ///< gradient writers a micro-batch: 2 where one chunk ties embedding and head
  int index = -1;          ///< its place in the parameter store
  std::int64_t order = 0;  ///< its place in the whole model

  /// Weight decay is for matrices.
  bool decays() const { return shape.rank() >= 2; }
  /// Elements [first_copied, shape.count()) are also held elsewhere; none: shape.count().
  std::int64_t first_copied() const;
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
