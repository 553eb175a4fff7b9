#pragma once
#include "verne/ops/launch.hpp"

namespace verne {

/// What changes from step to step, on the device so that the host never waits. f32 [kStepScalars]:
enum class StepScalar : int {
  learning_rate,
  bias_correction1,  ///< 1 − β1^t
  bias_correction2,  ///< 1 − β2^t
  clip_factor,       ///< multiplies the gradient; written by ClipFactor
  grad_norm,         ///< written by ClipFactor
  skip,              ///< not 0: AdamW changes nothing; written by ClipFactor where the norm is not finite
};
inline constexpr int kStepScalars = 6;

/// norm = √sum_of_squares;  clip_factor = max_norm > 0 ? min(1, max_norm / (norm + 1e-6)) : 1;  skip = norm
/// is not finite. sum_of_squares: f64 [1], of the whole gradient. Writes three of `scalars`.
struct ClipFactor {
  static constexpr const char* kName = "ClipFactor";
  Tensor scalars;         // in and out
  Tensor sum_of_squares;  // in
  double max_norm = 1;
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const ClipFactor&);
void launch(CudaQueue&, const ClipFactor&);

/// AdamW with decoupled weight decay (Loshchilov and Hutter, 2019), in float32, over n contiguous elements:
///   g = grad·clip_factor;  m = β1·m + (1 − β1)·g;  v = β2·v + (1 − β2)·g²
///   master ·= 1 − lr·weight_decay;  master −= lr/bias_correction1 · m / (√v/√bias_correction2 + eps); weight
///   = round(master)
/// Where scalars.skip is set nothing changes. master may alias weight where weight is f32.
struct AdamW {
  static constexpr const char* kName = "AdamW";
  Tensor weight, master, exp_avg, exp_avg_sq;  // in and out; weight bf16 or f32, the others f32
  Tensor grad, scalars;                        // in; grad f32
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0;
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const AdamW&);
void launch(CudaQueue&, const AdamW&);

}  // namespace verne
