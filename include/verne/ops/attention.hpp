#pragma once
#include "verne/ops/launch.hpp"

namespace verne {

/// How a flat run of tokens is cut into documents, which do not see each other.
struct DocumentLayout {
  enum class Kind {
    uniform,  ///< document i is tokens [i·pitch, i·pitch + max_length)
    packed    ///< document i is tokens [begins[i], ends[i]); any may be empty
  };
  Kind kind = Kind::uniform;
  std::int64_t count = 0;       ///< documents; packed: the tables' capacity
  std::int64_t max_length = 0;  ///< uniform: the length of each; packed: none is longer
  std::int64_t pitch = 0;       ///< uniform: from a document's first token to the next one's
  Tensor begins, ends;          ///< packed: i32 [count] each, begins[i] ≤ ends[i] ≤ begins[i + 1]
};

/// `count` documents of `length` tokens, one behind the other.
DocumentLayout uniform_documents(std::int64_t count, std::int64_t length);
/// Document i is tokens [starts[i], starts[i + 1]); starts: i32 [count + 1], non-decreasing.
DocumentLayout packed_documents(const Tensor& starts, std::int64_t max_length);

/// The documents' queries and their keys, of one kind and equal in number. Query documents partition the
/// query tokens in order. Key documents are disjoint and in order too, but between, before and behind them
/// may lie keys of no document, which no query sees. A document is aligned at its end: its last query is its
/// last key's token. So a document with queries has at least as many keys; one without queries may have keys.
/// The CPU kernels check the tables (InternalError); on CUDA they are taken at their word.
struct AttentionLayout {
  DocumentLayout query, key;
};

/// Every token is a query and a key.
AttentionLayout self_attention(const DocumentLayout& documents);
/// Whether queries and keys are cut by the same numbers and the same tables.
bool is_self_attention(const AttentionLayout& layout);

/// Pairs (query, visible key) of one document whose `queries` last tokens are queries; window 0: none.
/// visible_pairs(n, n, window) is that of n tokens which see each other.
std::int64_t visible_pairs(std::int64_t queries, std::int64_t keys, std::int64_t window);

/// Causal softmax attention with grouped queries: query head h reads key/value head h / (query_heads /
/// kv_heads). Query j of a document of lq queries and lk keys stands at position i = j + lk − lq of it.
///   p = softmax_j(scale·q_i·k_j) over keys j of the same document with 0 ≤ i − j (and i − j < window if
///   window > 0);  out_i = Σ p·v_j
/// q: [query tokens, query_heads, d], k: [key tokens, kv_heads, d], v: [key tokens, kv_heads, v_d], out:
/// [query tokens, query_heads, v_d]; rows may be strided. d and v_d are at most 256 on CUDA. Keys and values
/// that no query sees must be finite all the same: a kernel may multiply them by 0.
/// log_sum_exp: f32 (f64) [query tokens · query_heads], natural log, for the backward, in one order whatever
/// kernel runs: of token t and head h at t·query_heads + h where documents are packed, [documents,
/// query_heads, max_length] where they are uniform.
struct AttentionForward {
  static constexpr const char* kName = "AttentionForward";
  Tensor out, log_sum_exp;  // out
  Tensor q, k, v;           // in
  AttentionLayout layout;
  double scale = 1;
  std::int64_t window = 0;  // 0: none

  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const AttentionForward&);
void launch(CudaQueue&, const AttentionForward&);

/// Overwrites dq, dk, dv (rows may be strided), with zeros where no query sees a key. Bit-reproducible on the
/// CPU and on a deterministic CUDA queue.
struct AttentionBackward {
  static constexpr const char* kName = "AttentionBackward";
  Tensor dq, dk, dv;                       // out
  Tensor dout, q, k, v, out, log_sum_exp;  // in
  AttentionLayout layout;
  double scale = 1;
  std::int64_t window = 0;

  void check() const;
  Cost cost() const;
  Access access() const;
};
void launch(CpuQueue&, const AttentionBackward&);
void launch(CudaQueue&, const AttentionBackward&);

/// What a reproducible backward on CUDA keeps of score matrices at once; more only where those of one
/// document and key/value head are larger.
inline constexpr std::int64_t kScoreMatrixBytes = std::int64_t{5} << 29;

/// Bounds the device memory that a backward on CUDA takes beside its arguments, without a GPU to ask: dq, and
/// dk and dv of every query head, in float32 as cudnn-frontend lays them out, gathered dk and dv, tables, and
/// score matrices. What cuDNN took on an H200 (docs/measurements.md) is below it; bench_cuda prints both.
std::int64_t workspace_bound(const AttentionBackward& op, Determinism determinism);

}  // namespace verne
