#pragma once
#include <span>
#include <vector>

#include "verne/ops/launch.hpp"

namespace verne {

/// What changes from step to step, on the device so that the host never waits. f32 [kStepScalars]:
enum class StepScalar : int {
  learning_rate,
  bias_correction1,  ///< 1 − β1^t
  bias_correction2,  ///< 1 − β2^t
  clip_factor,       ///< multiplies the gradient; written by ClipFactor
  grad_norm,         ///< written by ClipFactor
  skip,              ///< not 0: AdamW changes nothing; set by ClipFactor, which never takes it back
};
inline constexpr int kStepScalars = 6;
/// The first of them come from the host in every step.
inline constexpr int kHostStepScalars = 3;

/// norm = √sum_of_squares;  clip_factor = max_norm > 0 ? min(1, max_norm / (norm + 1e-6)) : 1. skip is set
/// where the norm or the loss is not finite, and stays set. sum_of_squares: f64 [1], of the whole gradient;
/// loss: f64 [1]. Writes the last three of `scalars`.
struct ClipFactor {
  static constexpr const char* kName = "ClipFactor";
  Tensor scalars;               // in and out
  Tensor sum_of_squares, loss;  // in
  double max_norm = 1;
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const ClipFactor&);
void launch(CudaQueue&, const ClipFactor&);

/// Consecutive elements of a buffer of weights and gradients that are treated alike: [flat, flat + count) of
/// these two, [owned, owned + count) of the optimizer's state.
struct OptimizerSegment {
  std::int64_t flat = 0, owned = 0, count = 0;
  bool decays = false;   ///< weight decay
  bool counted = false;  ///< in the gradient's norm
};
/// Segments cut into tiles of bounded size, so that one launch works on all of them: a row {flat, owned,
/// count, flags} each, for a device tensor i64 [tiles, kTileFields].
inline constexpr std::int64_t kTileFields = 4;
inline constexpr std::int64_t kTileElements = 8192;  ///< at most
enum class TileFlag : std::int64_t { decays = 1, counted = 2 };
std::vector<std::int64_t> optimizer_tiles(std::span<const OptimizerSegment> segments);

/// AdamW with decoupled weight decay (Loshchilov and Hutter, 2019), in float32, over the elements of all
/// tiles:
///   g = grad·clip_factor;  m = β1·m + (1 − β1)·g;  v = β2·v + (1 − β2)·g²
///   master ·= 1 − lr·weight_decay (tiles that decay);  master −= lr/bias_correction1 · m /
///   (√v/√bias_correction2 + eps);  weight = round(master)
/// Where scalars.skip is set nothing changes. Without a master (f32) the weights are their own.
struct AdamW {
  static constexpr const char* kName = "AdamW";
  Tensor weight;                       // in and out: [flat elements], bf16 or f32
  Tensor master, exp_avg, exp_avg_sq;  // in and out: f32 [owned elements]
  Tensor grad, scalars, tiles;         // in; grad f32 [flat elements]
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0;
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const AdamW&);
void launch(CudaQueue&, const AdamW&);

/// total += Σ grad² over the counted tiles, in float64. total: f64 [1]; grad: f32 [flat elements].
/// Deterministic: the order of the sum depends on the tiles alone. NaN and infinity carry over.
struct GradientSquares {
  static constexpr const char* kName = "GradientSquares";
  Tensor total;        // in and out
  Tensor grad, tiles;  // in
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const GradientSquares&);
void launch(CudaQueue&, const GradientSquares&);

}  // namespace verne
