#pragma once
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
};

/// One micro-batch on the device: `tokens` flat tokens of several documents.
struct DeviceBatch {
  std::int64_t token_count = 0;
  Tensor tokens, targets, positions;  ///< i32 [token_count]
  Tensor loss_mask;                   ///< u8 [token_count]: 1 where the target counts
  DocumentLayout documents;
  Tensor loss_scale;       ///< f32 [1]: 1 / counted tokens of the global batch
  Tensor loss_sum;         ///< f64 [1]: −Σ log-probability of counted targets is added here
  Tensor log_probability;  ///< f32 [token_count], out: of each target
};

/// Where a layer's gradient goes: overwrite at the step's first writer, add afterwards.
struct Gradient {
  Tensor tensor;  ///< f32, the parameter's shape
  Accumulate accumulate;
};

/// The engine's side of parameters.
class ParameterAccess {
 public:
  virtual ~ParameterAccess() = default;
  /// The weight, usable on the compute queue from here on.
  virtual Operand weight(const Parameter& parameter) = 0;
  virtual Gradient grad(const Parameter& parameter) = 0;
  /// This micro-batch's last write of a use is enqueued; the engine may start reducing.
  virtual void grad_done(const Parameter& parameter) = 0;
};

enum class Mode { train, evaluate };

/// What a layer sees while one micro-batch runs.
struct Step {
  Queue& queue;
  TensorParallel tensor;
  ParameterAccess& parameters;
  const DeviceBatch& batch;
  DType dtype;  ///< of activations
  Mode mode;
  Arena* saved;    ///< lives from forward to backward
  Arena& replay;   ///< one layer's worth, for layers that run again in backward or keep nothing
  Arena& scratch;  ///< a stack: released layer by layer

  std::int64_t tokens() const { return batch.token_count; }
  std::int64_t stream_tokens() const { return tensor.stream_tokens(batch.token_count); }
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

/// Whether a cheap tensor is kept for backward or built again there.
enum class Keep { stored, rebuilt };

}  // namespace verne
