#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "cuda/attention_tables.hpp"

struct cudnnContext;  // cudnnHandle_t without cuDNN's headers

namespace verne::cuda {

/// Names of a graph's tensors. Of the offset tables, the i-th is kOffsets + i.
enum Uid : std::int64_t { kQ = 1, kK, kV, kOut, kStats, kDout, kDq, kDk, kDv, kQueries, kKeys, kOffsets };

/// What a plan of cuDNN's depends on. Two problems with equal facts run the same plan.
struct AttentionProblem {
  enum class Direction { forward, backward } direction;
  Determinism determinism;
  enum class Documents {
    equal,   ///< of equal lengths, at equal distances
    masked,  ///< the same, and cuDNN is given the lengths: it masks what lies behind them
    ragged   ///< at the offsets and of the lengths that tables say
  } documents;
  /// Whether queries and keys are the same tokens, so that one set of tables serves both.
  enum class Tokens { same, apart } tokens;
  std::int64_t count, query_length, key_length;  ///< of documents; ragged: no document is longer
  std::int64_t key_pitch;                 ///< not ragged: from a document's first key to the next one's
  std::int64_t query_tokens, key_tokens;  ///< rows of q and of k
  std::int64_t heads, kv_heads, dim, value_dim, window;
  std::int64_t row_heads;  ///< query heads of the log_sum_exp buffer; `heads` may be a part of them
  double scale;
  /// Row strides in the order of the tensors' names; 0 where the direction has no such tensor.
  std::vector<std::int64_t> strides;

  std::int64_t stride(std::int64_t uid) const { return strides[static_cast<std::size_t>(uid - kQ)]; }
  /// Columns of a head.
  std::int64_t width(std::int64_t uid) const {
    return uid == kV || uid == kOut || uid == kDout || uid == kDv ? value_dim : dim;
  }
  static bool of_keys(std::int64_t uid) { return uid == kK || uid == kV || uid == kDk || uid == kDv; }
  /// The offset tables of ragged documents: each tensor's is that of its side and row stride, and
  /// log_sum_exp's has the query heads for a stride.
  std::vector<OffsetTable> offset_tables() const;
  OffsetTable offset_table(std::int64_t uid) const;
  /// All of it, for a map.
  std::vector<std::int64_t> key() const;
};

class AttentionPlan {
 public:
  virtual ~AttentionPlan() = default;
  virtual std::int64_t workspace_bytes() const = 0;
  /// Enqueues on the handle's stream. Throws SystemError.
  virtual void execute(cudnnContext* handle, std::unordered_map<std::int64_t, void*>& pointers,
                       std::byte* workspace) = 0;
};

/// Null where cuDNN takes no such problem; `refusal` then says why. The handle's GPU is current.
std::unique_ptr<AttentionPlan> make_attention_plan(cudnnContext* handle, const AttentionProblem& problem,
                                                   std::string& refusal);

}  // namespace verne::cuda
