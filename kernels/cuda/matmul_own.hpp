#pragma once
#include "verne/ops/matmul.hpp"
#include "verne/tensor/cuda_queue.hpp"

namespace verne::cuda {

/// The product without a library, for shapes and alignments that cuBLASLt refuses. Slow.
void own_matmul(CudaQueue& queue, const Matmul& op);

}  // namespace verne::cuda
