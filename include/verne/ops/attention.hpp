#pragma once
#include "verne/ops/launch.hpp"

namespace verne {

/// How a flat run of tokens is cut into documents, which do not see each other.
struct DocumentLayout {
  enum class Kind {
    uniform,  ///< `count` documents of exactly `max_length` tokens
    packed    ///< document i is tokens [starts[i], starts[i+1]); empty documents at the end are allowed
  };
  Kind kind = Kind::uniform;
  std::int64_t count = 0;       ///< uniform: documents; packed: the capacity of `starts`, less one
  std::int64_t max_length = 0;  ///< no document is longer
  Tensor starts;  ///< i32 [count + 1], non-decreasing, from 0 to the number of tokens; present in both kinds
};

/// Causal softmax attention with grouped queries: query head h reads key/value head h / (query_heads /
/// kv_heads).
///   p = softmax_j(scale·q_i·k_j) over keys j of the same document with 0 ≤ i − j (and i − j < window if
///   window > 0);  out_i = Σ p·v_j
/// q: [tokens, query_heads, d], k, v: [tokens, kv_heads, d], out: [tokens, query_heads, d]; rows may be
/// strided. log_sum_exp: f32 (f64) [tokens · query_heads] in the kernel's own order, natural log; for the
/// backward.
struct AttentionForward {
  static constexpr const char* kName = "AttentionForward";
  Tensor out, log_sum_exp;  // out
  Tensor q, k, v;           // in
  DocumentLayout documents;
  double scale = 1;
  std::int64_t window = 0;  // 0: none

  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const AttentionForward&);
void launch(CudaQueue&, const AttentionForward&);

/// Overwrites dq, dk, dv (rows may be strided). Bit-reproducible on the CPU and on a deterministic CUDA
/// queue.
struct AttentionBackward {
  static constexpr const char* kName = "AttentionBackward";
  Tensor dq, dk, dv;                       // out
  Tensor dout, q, k, v, out, log_sum_exp;  // in
  DocumentLayout documents;
  double scale = 1;
  std::int64_t window = 0;

  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const AttentionBackward&);
void launch(CudaQueue&, const AttentionBackward&);

}  // namespace verne
