#pragma once
#include <optional>

#include "verne/nn/config.hpp"
#include "verne/nn/step.hpp"

namespace verne {

/// Rows [first, first + count) of a linear layer's outputs.
struct Rows {
  std::int64_t first = 0, count = 0;
};

/// y = x·Wᵀ + b with W's rows (and b) cut among tensor ranks: x [stream tokens, in] → y [tokens, out /
/// tensor]. Under sequence parallelism the tokens are gathered first.
struct ColumnLinear {
  Parameter weight;
  std::optional<Parameter> bias;

  std::int64_t outputs() const { return weight.shape[0]; }
  Rows all() const { return {0, outputs()}; }
  void forward(Step& step, const Tensor& y, const Operand& x) const;
  /// Some of the outputs alone, from tokens that were gathered already; y: [tokens, rows.count].
  void multiply(Step& step, const Tensor& y, const Operand& gathered, Rows rows) const;

  /// The backward pass in pieces, so that a caller may do something between them: for some rows of outputs at
  /// a time, `input` then `weight`; `finish` at the end. The gather of x hides behind the first dy·W, and the
  /// reduction of dx behind the last weight gradient.
  class Backward {
   public:
    /// dx [stream tokens, in] is overwritten with the sum over tensor ranks; x is the forward's, and may be
    /// empty where the weight is frozen.
    Backward(Step& step, const ColumnLinear& linear, const Tensor& dx, const Operand& x);
    /// Adds dy·W of these rows. dy: [tokens, rows.count].
    void input(const Tensor& dy, Rows rows);
    /// Starts the reduction of dx: after the last `input`.
    void reduce();
    /// Weight and bias gradient of these rows.
    void weight(const Tensor& dy, Rows rows);
    /// dx is whole on the compute queue; the weight's gradient is done.
    void finish();

   private:
    Step& step_;
    const ColumnLinear& linear_;
    Tensor dx_, partial_;
    Operand x_;
    Gradient dweight_, dbias_;
    Pending gathered_, reduced_;
    bool first_ = true;
  };
  void backward(Step& step, const Tensor& dx, const Tensor& dy, const Operand& x) const;

  /// Whether backward reads the forward's x.
  bool needs_input() const { return weight.trainable; }
  void add_parameters(std::vector<Parameter*>& all);
};

/// y = x·Wᵀ + b with W's columns cut among tensor ranks and b on all of them: x [tokens, in / tensor] → y
/// [stream tokens, out], summed over tensor ranks; under sequence parallelism each rank keeps its tokens.
struct RowLinear {
  Parameter weight;
  std::optional<Parameter> bias;

  void forward(Step& step, const Tensor& y, const Operand& x) const;
  /// Overwrites dx [tokens, in / tensor]; adds into the weight's gradient.
  void backward(Step& step, const Tensor& dx, const Tensor& dy, const Operand& x) const;

  bool needs_input() const { return weight.trainable; }
  void add_parameters(std::vector<Parameter*>& all);
};

/// A projection of `inputs` features, cut evenly among the tensor ranks, back onto the residual stream.
RowLinear make_row_linear(const ModelConfig& config, const TensorParallel& tensor, const std::string& name,
                          std::int64_t inputs, bool with_bias);

/// The residual stream's tokens of all tensor ranks: `x` itself where they are whole, else gathered into
/// scratch.
Operand gather_stream(Step& step, const Operand& x);
/// Reduces partial sums [tokens, width] over tensor ranks into `y` [stream tokens, width]. `partial` may be
/// `y` where the stream is whole.
void reduce_to_stream(Step& step, const Tensor& y, const Tensor& partial);
/// Starts a collective on `queue` behind all that the compute queue was given so far.
template <class Collective>
[[nodiscard]] Pending start_beside(Step& step, Queue& queue, Collective&& collective) {
  if (&queue != &step.queue) queue.wait(step.queue.record());
  return collective(queue);
}

}  // namespace verne
