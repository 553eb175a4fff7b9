#pragma once
#include "verne/ops/attention.hpp"
#include "verne/tensor/cuda_queue.hpp"

namespace verne::cuda {

enum class Taken : bool { no, yes };

/// Attention by cuDNN's fused kernels, bf16. Taken::no: cuDNN has no plan for this shape on this GPU (a
/// warning says why), and nothing has run. A forward and its backward get the same answer as far as
/// log_sum_exp's layout is concerned: `forward_taken` repeats what the forward of such a shape got.
Taken cudnn_attention_forward(CudaQueue& queue, const AttentionForward& op);
Taken cudnn_attention_backward(CudaQueue& queue, const AttentionBackward& op);
Taken cudnn_forward_taken(CudaQueue& queue, const AttentionBackward& op);

}  // namespace verne::cuda
