#pragma once
#include "verne/ops/launch.hpp"

namespace verne {

/// Cross-entropy over a vocabulary that may be cut in column blocks among ranks, in three steps:
/// each rank takes the statistics of its block; the ranks gather them; each rank finishes its rows.

/// Per row of logits [tokens, columns] (columns from `valid_columns` on are padding and ignored), the block's
/// stats[t] = {max, Σ exp(x − max), logit of the target, or −inf where the target is not in the block}.
/// The block's first column is vocabulary id `first_column`. stats: f32 (f64) [tokens, 3]; targets: i32
/// [tokens]. A block without valid columns gives {−inf, 0, −inf}. Logits may be f32, bf16 (f64); arithmetic
/// in float32.
struct CrossEntropyStatistics {
  static constexpr const char* kName = "CrossEntropyStatistics";
  Tensor stats;            // out
  Tensor logits, targets;  // in
  std::int64_t first_column = 0;
  std::int64_t valid_columns = 0;
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const CrossEntropyStatistics&);
void launch(CudaQueue&, const CrossEntropyStatistics&);

/// From the statistics of all blocks [blocks, tokens, 3]: log_sum_exp[t] = M + log Σ_b s_b·exp(m_b − M), M =
/// max_b m_b, and log_probability[t] = target logit − log_sum_exp. Both f32 (f64) [tokens].
struct CrossEntropyCombine {
  static constexpr const char* kName = "CrossEntropyCombine";
  Tensor log_probability, log_sum_exp;  // out
  Tensor stats;                         // in
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const CrossEntropyCombine&);
void launch(CudaQueue&, const CrossEntropyCombine&);

/// dlogits = loss_mask[t]·scale·(exp(x − log_sum_exp) − [column is the target]); 0 in padding columns and
/// where the mask is 0. May alias logits. loss_mask: u8 [tokens]; scale: f32 (f64) [1], on the device: 1 /
/// counted tokens of the global batch.
struct CrossEntropyBackward {
  static constexpr const char* kName = "CrossEntropyBackward";
  Tensor dlogits;                                         // out
  Tensor logits, targets, log_sum_exp, loss_mask, scale;  // in
  std::int64_t first_column = 0;
  std::int64_t valid_columns = 0;
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const CrossEntropyBackward&);
void launch(CudaQueue&, const CrossEntropyBackward&);

}  // namespace verne
