#include "verne/ops/attention.hpp"

#include "cuda/attention_cudnn.hpp"
#include "cuda/attention_own.hpp"

// An H200 reaches 590 (forward) and 475 TFLOP/s (backward) through cuDNN on two documents of 4096, 32/8 heads
// of 128. cuDNN computes bf16 attention; what it does not take (float32, head sizes that are not multiples of
// 8, documents of one token, packed documents before Hopper) is for the kernels of our own.
namespace verne {

using namespace cuda;

void launch(CudaQueue& queue, const AttentionForward& op) {
  if (op.q.size(0) == 0) return;
  if (cudnn_attention_forward(queue, op) == Taken::no) own_attention_forward(queue, op);
}

void launch(CudaQueue& queue, const AttentionBackward& op) {
  if (op.q.size(0) == 0) return;
  if (cudnn_attention_backward(queue, op) == Taken::yes) return;
  AttentionBackward own = op;
  if (cudnn_forward_taken(queue, op) == Taken::yes) own.log_sum_exp = {};  // cuDNN's, in another order
  own_attention_backward(queue, own);
}

}  // namespace verne
