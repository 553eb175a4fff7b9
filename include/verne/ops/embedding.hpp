#pragma once
#include "verne/ops/launch.hpp"

namespace verne {

/// y[t] = weight[tokens[t] − first_row], or 0 where that row is another rank's. y: [tokens, width],
/// weight: [rows, width], tokens: i32 [tokens].
struct EmbeddingForward {
  static constexpr const char* kName = "EmbeddingForward";
  Tensor y;               // out
  Tensor weight, tokens;  // in
  std::int64_t first_row = 0;
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const EmbeddingForward&);
void launch(CudaQueue&, const EmbeddingForward&);

/// dweight[tokens[t] − first_row] += dy[t] for the rows held here; Accumulate::no zeroes dweight first.
/// dweight: f32 (f64) [rows, width]. Adds in token order (deterministic) on the CPU and on a deterministic
/// CUDA queue.
struct EmbeddingBackward {
  static constexpr const char* kName = "EmbeddingBackward";
  Tensor dweight;  // out
  Accumulate accumulate = Accumulate::no;
  Tensor dy, tokens;  // in
  std::int64_t first_row = 0;
  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const EmbeddingBackward&);
void launch(CudaQueue&, const EmbeddingBackward&);

}  // namespace verne
