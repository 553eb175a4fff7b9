#pragma once
#include "verne/ops/attention.hpp"
#include "verne/tensor/cuda_queue.hpp"

namespace verne::cuda {

/// Attention without a library: any head sizes up to 256, float32 or bf16 storage, float32 arithmetic, no
/// atomics. There is at least one query.
void own_attention_forward(CudaQueue& queue, const AttentionForward& op);
void own_attention_backward(CudaQueue& queue, const AttentionBackward& op);

}  // namespace verne::cuda
