#pragma once
#include <optional>

#include "verne/nn/key_value_exchange.hpp"
#include "verne/nn/norm_linear.hpp"
#include "verne/nn/rope_table.hpp"

namespace verne {

/// Norm, query/key/value projection, optional head norms, rotary embedding, attention, output projection.
struct Attention {
  NormLinear qkv;  ///< rows: this rank's query heads, then its key heads, then its value heads
  std::optional<Parameter> q_norm, k_norm;
  RowLinear output;
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;  ///< of this rank
  std::int64_t window = 0;
  double norm_eps = 1e-6;
  Keep keep = Keep::stored;

  struct Saved {
    NormLinear::Saved qkv;
    Tensor projected;  ///< [tokens, (heads + 2·kv_heads)·head_dim]; rotated in place where there are no head
                       ///< norms
    Tensor q, k;  ///< with head norms: normed and rotated; empty where they are rebuilt
    Tensor q_rstd, k_rstd;
    Operand out;  ///< [tokens, heads·head_dim]
    Tensor log_sum_exp;
  };

  /// Writes the stream's delta.
  void forward(Step& step, Stream& stream, const RopeTable& rope, Saved& saved) const;
  /// dx: gradient of the stream (the delta's and the sum's alike), in and out.
  void backward(Step& step, const Tensor& dx, const RopeTable& rope, const Saved& saved) const;

  void add_parameters(std::vector<Parameter*>& all);

 private:
  /// [tokens, heads, head_dim] each: views of what the projection gave, or of its gradient.
  struct Heads {
    Tensor q, k, v;
  };
  Heads split(const Tensor& projected) const;
  Rows query_rows() const { return {0, heads * head_dim}; }
  Rows key_value_rows() const { return {heads * head_dim, 2 * kv_heads * head_dim}; }

  /// Rotated heads of this rank: views of what is saved, or built again in scratch.
  Heads rotated(Step& step, const RopeTable& rope, const Saved& saved) const;
  /// Overwrites the gradients of queries and of all keys and values for one part of the queries.
  void attend_back(Step& step, const AttentionPart& part, const Tensor& dq, const KeysValues& dkeys,
                   const Tensor& dout, const Tensor& q, const KeysValues& keys, const Saved& saved) const;
  /// dnormalised: overwritten with the gradient of the norm's output. dout: of the heads' output.
  void backward_alone(Step& step, const Tensor& dnormalised, const Tensor& dout, const RopeTable& rope,
                      const Saved& saved, const Tensor& rotated_q, const KeysValues& keys) const;
  void backward_gathered(Step& step, const Tensor& dnormalised, const Tensor& dout, const RopeTable& rope,
                         const Saved& saved, const Tensor& rotated_q, const KeysValues& keys) const;

  void rotate(Step& step, const Tensor& y, const Tensor& rstd, const Tensor& x,
              const std::optional<Parameter>& norm, const RopeTable& rope) const;
  void rotate_back(Step& step, const Tensor& dx, const Tensor& rstd, const Tensor& x,
                   const std::optional<Parameter>& norm, const RopeTable& rope) const;
};

/// `layer` counts from 0. Throws UserError where the heads cannot be cut among the tensor ranks.
Attention make_attention(const ModelConfig& config, const TensorParallel& tensor, std::int64_t layer,
                         Keep keep);

}  // namespace verne
