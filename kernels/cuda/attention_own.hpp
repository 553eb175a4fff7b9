#pragma once
#include <span>

#include "verne/ops/attention.hpp"
#include "verne/tensor/cuda_queue.hpp"

namespace verne::cuda {

/// Attention without a library: any head size up to 256, float32 or bf16 storage, float32 arithmetic, no
/// atomics. log_sum_exp is [tokens, query_heads]. An empty `out` asks for log_sum_exp alone.
void own_attention_forward(CudaQueue& queue, const AttentionForward& op);
/// `log_sum_exp` empty: it is computed again.
void own_attention_backward(CudaQueue& queue, const AttentionBackward& op);

/// Tables that describe packed documents to cuDNN, from op.starts [count + 1] on the device:
///   offsets i64 [strides, count + 1]: starts·stride, for each of the tensors' row strides;  lengths i32
///   [count].
void fill_document_tables(CudaQueue& queue, const Tensor& starts, std::span<const std::int64_t> strides,
                          const Tensor& offsets, const Tensor& lengths);

}  // namespace verne::cuda
