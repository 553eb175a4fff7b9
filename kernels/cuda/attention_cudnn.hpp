#pragma once
#include "verne/ops/attention.hpp"
#include "verne/tensor/cuda_queue.hpp"

namespace verne::cuda {

enum class Taken : bool { no, yes };

/// Attention by cuDNN's fused kernels, bf16. Taken::no: cuDNN has no plan for this shape on this GPU (a
/// warning says why where that had to be asked), and nothing has run.
Taken cudnn_attention_forward(CudaQueue& queue, const AttentionForward& op);
Taken cudnn_attention_backward(CudaQueue& queue, const AttentionBackward& op);

}  // namespace verne::cuda
