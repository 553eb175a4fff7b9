#pragma once
#include <vector>

#include "verne/comm/communicator.hpp"
#include "verne/nn/parameter.hpp"
#include "verne/ops/attention.hpp"
#include "verne/ops/launch.hpp"
#include "verne/tensor/arena.hpp"

namespace verne {

/// How this rank takes part in tensor parallelism. With sequence parallelism the residual stream is cut by
/// tokens: each rank holds tokens/size of them; without, every rank holds all.
struct TensorParallel {
  Communicator* communicator = nullptr;
  Queue* queue = nullptr;  ///< its collectives run here, beside the compute queue
  enum class Sequence : bool { whole, sharded } sequence = Sequence::whole;

  int rank() const { return communicator->rank(); }
  int size() const { return communicator->size(); }
  bool active() const { return communicator->size() > 1; }
  bool shards_sequence() const { return active() && sequence == Sequence::sharded; }
  std::int64_t stream_tokens(std::int64_t tokens) const {
    return shards_sequence() ? tokens / size() : tokens;
  }
  /// The copies of a parameter that acts on the residual stream: with sequence parallelism each rank sees
  /// tokens of its own.
  Placement::Copies stream_copies() const {
    if (!active()) return Placement::Copies::none;
    return shards_sequence() ? Placement::Copies::partial : Placement::Copies::equal;
  }
};

/// How this rank takes part in context parallelism: every row of the micro-batch is cut into 2·size chunks,
/// of which rank r holds chunk r and chunk 2·size − 1 − r. Its queries are those tokens; keys and values are
/// gathered from all ranks.
struct ContextParallel {
  Communicator* communicator = nullptr;
  Queue* queue = nullptr;
  /// i32 [tokens of all ranks]: where in rank order a token of the rows' own order lies, and the inverse.
  Tensor from_ranks, from_rows;

  int size() const { return communicator->size(); }
  bool active() const { return communicator->size() > 1; }
};

/// Queries [first, first + count) of a micro-batch and what they see of the keys.
struct AttentionPart {
  std::int64_t first = 0, count = 0;
  AttentionLayout layout;
};

/// One micro-batch on the device: this rank's `token_count` tokens of several documents.
struct DeviceBatch {
  std::int64_t token_count = 0;
  std::int64_t key_count = 0;         ///< tokens of all context ranks together
  Tensor tokens, targets, positions;  ///< i32 [token_count]; positions count from a document's start
  Tensor loss_mask;                   ///< u8 [token_count]: 1 where the target counts
  /// One part; with context parallelism two, one for each chunk of the rows.
  std::vector<AttentionPart> attention;
  Tensor loss_scale;       ///< f32 [1]: 1 / counted tokens of the global batch
  Tensor loss_sum;         ///< f64 [1]: −Σ log-probability of counted targets is added here
  Tensor log_probability;  ///< f32 [token_count], out: of each target
};

/// Where a layer's gradient goes: overwrite at the step's first writer, add afterwards.
struct Gradient {
  Tensor tensor;  ///< f32, the parameter's shape
  Accumulate accumulate;
};

/// What stands behind parameters.
class ParameterAccess {
 public:
  virtual ~ParameterAccess() = default;
  /// The weight, usable on the compute queue from here on.
  virtual Operand weight(const Parameter& parameter) = 0;
  /// Of a trainable parameter.
  virtual Gradient grad(const Parameter& parameter) = 0;
  /// One use of the parameter has written all that it writes in this micro-batch. Nothing for a frozen one.
  virtual void grad_done(const Parameter& parameter) = 0;
};

/// What a layer sees while one micro-batch runs.
struct Step {
  Queue& queue;
  TensorParallel tensor;
  ContextParallel context;
  ParameterAccess& parameters;
  const DeviceBatch& batch;
  DType dtype;     ///< of activations
  Arena* saved;    ///< lives from forward to backward
  Arena& replay;   ///< one layer's worth, for layers that run again in backward or keep nothing
  Arena& scratch;  ///< a stack: released layer by layer

  std::int64_t tokens() const { return batch.token_count; }
  std::int64_t stream_tokens() const { return tensor.stream_tokens(batch.token_count); }
  /// The same step, in which layers save into `arena`.
  Step saving_into(Arena& arena) const {
    Step step = *this;
    step.saved = &arena;
    return step;
  }
  Tensor save(DType type, Shape shape) { return saved->allocate(type, shape); }
  Tensor temporary(DType type, Shape shape) { return scratch.allocate(type, shape); }
  Operand weight(const Parameter& parameter) { return parameters.weight(parameter); }
  Gradient grad(const Parameter& parameter) { return parameters.grad(parameter); }
  void grad_done(const Parameter& parameter) { parameters.grad_done(parameter); }
};

/// The residual stream between layers: its value is `sum` + `delta`. The addition is left to the next norm,
/// which fuses it.
struct Stream {
  Tensor sum;     ///< [stream tokens, hidden]
  Tensor delta;   ///< what the last sub-layer gave; empty where it was added already
  Tensor buffer;  ///< where the next sub-layer writes its delta
};
/// The stream as one tensor: adds a pending delta into `out`, or gives the sum itself.
Tensor settle(Step& step, const Stream& stream, const Tensor& out);

/// Whether a cheap tensor is kept for backward or built again there.
enum class Keep { stored, rebuilt };

}  // namespace verne
