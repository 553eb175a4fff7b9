#pragma once
#include "verne/ops/launch.hpp"
#include "verne/tensor/cuda_queue.hpp"

namespace verne::cuda {

/// The second stage of a sum over rows: out[c] (+)= Σ partial[i·width + c] over i in order. out: f32 [width];
/// partial: f32 [parts, width] in device memory.
void add_partials(CudaQueue& queue, const Tensor& out, Accumulate accumulate, const Tensor& partial);

}  // namespace verne::cuda
