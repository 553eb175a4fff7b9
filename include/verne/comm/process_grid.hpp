#pragma once
#include <cstdint>
#include <string>

namespace verne {

/// The sizes of a layout.
struct ParallelSizes {
  int tensor = 1, context = 1, data = 1, pipeline = 1;
  int expert = 1, expert_tensor = 1;
};

/// Where each rank stands. Immutable. The same ranks are factored twice, tensor (or expert_tensor) fastest:
///   dense:  rank = tensor + T·(context + C·(data + D·pipeline))
///   expert: rank = expert_tensor + ET·(expert + E·(expert_data + ED·pipeline))
/// data = ranks / (tensor·context·pipeline);  expert_tensor·expert divides tensor·context·data.
class ProcessGrid {
 public:
  /// `sizes.data` is computed. Throws UserError with the nearest layout that fits where the sizes do not
  /// divide `ranks`.
  ProcessGrid(int rank, int ranks, ParallelSizes sizes);

  int rank() const { return rank_; }
  int ranks() const { return ranks_; }
  const ParallelSizes& sizes() const { return sizes_; }
  int expert_data_size() const;

  int tensor() const { return rank_ % sizes_.tensor; }
  int context() const { return rank_ / sizes_.tensor % sizes_.context; }
  int data() const { return rank_ / (sizes_.tensor * sizes_.context) % sizes_.data; }
  int pipeline() const { return rank_ / (sizes_.tensor * sizes_.context * sizes_.data); }
  int expert_tensor() const { return rank_ % sizes_.expert_tensor; }
  int expert() const { return rank_ / sizes_.expert_tensor % sizes_.expert; }
  int expert_data() const { return rank_ / (sizes_.expert_tensor * sizes_.expert) % expert_data_size(); }

  int stage() const { return pipeline(); }
  int stages() const { return sizes_.pipeline; }
  bool is_first_stage() const { return stage() == 0; }
  bool is_last_stage() const { return stage() == stages() - 1; }

  /// Colours for splitting the world: ranks with equal colour form the group along that axis. Ordered by
  /// world rank, a rank's number within the group is its coordinate on that axis.
  int tensor_colour() const { return rank_ / sizes_.tensor; }
  int context_colour() const;   ///< ranks that differ in context alone
  int data_colour() const;      ///< ranks that differ in data alone
  int pipeline_colour() const;  ///< ranks that differ in pipeline alone: the stages of one chain
  /// Ranks that differ in data or context: gradients are reduced over these.
  int data_context_colour() const;
  /// This rank's number in its data_context group: context + C·data.
  int data_context_rank() const { return context() + sizes_.context * data(); }
  int data_context_size() const { return sizes_.context * sizes_.data; }
  /// The first and the last stage of a chain, which both hold a tied embedding; ranks of the stages between
  /// are alone, as all are where there is one stage.
  int embedding_colour() const;

  std::string text() const;  ///< "tensor 2 × data 4"

 private:
  int rank_, ranks_;
  ParallelSizes sizes_;
};

}  // namespace verne
