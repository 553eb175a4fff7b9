#include "verne/nn/attention.hpp"

#include <cmath>

#include "verne/ops/rope.hpp"
#include "verne/ops/run.hpp"

namespace verne {

Attention::Heads Attention::split(const Tensor& projected) const {
  const std::int64_t tokens = projected.size(0);
  const auto block = [&](std::int64_t first, std::int64_t count) {
    return projected.columns(first * head_dim, count * head_dim).view({tokens, count, head_dim});
  };
  return {block(0, heads), block(heads, kv_heads), block(heads + kv_heads, kv_heads)};
}

void Attention::rotate(Step& step, const Tensor& y, const Tensor& rstd, const Tensor& x,
                       const std::optional<Parameter>& norm, const RopeTable& rope) const {
  run(step.queue, RopeForward{.y = y,
                              .rstd = rstd,
                              .x = x,
                              .weight = norm ? step.weight(*norm).data : Tensor{},
                              .cos = rope.cos,
                              .sin = rope.sin,
                              .positions = step.batch.positions,
                              .eps = norm_eps});
}

void Attention::rotate_back(Step& step, const Tensor& dx, const Tensor& rstd, const Tensor& x,
                            const std::optional<Parameter>& norm, const RopeTable& rope) const {
  RopeBackward backward{
      .dx = dx, .dy = dx, .cos = rope.cos, .sin = rope.sin, .positions = step.batch.positions};
  if (norm) {
    backward.x = x;
    backward.rstd = rstd;
    backward.weight = step.weight(*norm).data;
    if (norm->trainable) {
      const Gradient gradient = step.grad(*norm);
      backward.dweight = gradient.tensor;
      backward.accumulate_dweight = gradient.accumulate;
    }
  }
  run(step.queue, backward);
  if (norm) step.grad_done(*norm);
}

void Attention::forward(Step& step, Stream& stream, const RopeTable& rope, Saved& saved) const {
  const ArenaScope scope(step.scratch);
  const std::int64_t tokens = step.tokens();
  saved.projected = step.save(step.dtype, {tokens, (heads + 2 * kv_heads) * head_dim});
  qkv.forward(step, saved.projected, stream, saved.qkv);

  const auto [q, k, v] = split(saved.projected);
  Tensor rotated_q = q, rotated_k = k;
  if (q_norm) {
    saved.q_rstd = step.save(DType::f32, {tokens, heads});
    saved.k_rstd = step.save(DType::f32, {tokens, kv_heads});
    const auto place = [&](Tensor& slot, const Shape& shape) {
      return keep == Keep::stored ? slot = step.save(step.dtype, shape) : step.temporary(step.dtype, shape);
    };
    rotated_q = place(saved.q, q.shape());
    rotated_k = place(saved.k, k.shape());
  }
  rotate(step, rotated_q, saved.q_rstd, q, q_norm, rope);
  rotate(step, rotated_k, saved.k_rstd, k, k_norm, rope);

  saved.out = step.save(step.dtype, {tokens, heads, head_dim});
  saved.log_sum_exp = step.save(DType::f32, {tokens * heads});
  run(step.queue, AttentionForward{.out = saved.out,
                                   .log_sum_exp = saved.log_sum_exp,
                                   .q = rotated_q,
                                   .k = rotated_k,
                                   .v = v,
                                   .layout = self_attention(step.batch.documents),
                                   .scale = 1 / std::sqrt(static_cast<double>(head_dim)),
                                   .window = window});
  output.forward(step, stream.buffer, saved.out.view({tokens, heads * head_dim}));
  stream.delta = stream.buffer;
}

void Attention::backward(Step& step, const Tensor& dx, const RopeTable& rope, const Saved& saved) const {
  const ArenaScope scope(step.scratch);
  const std::int64_t tokens = step.tokens();
  const auto [q, k, v] = split(saved.projected);
  Tensor rotated_q = q_norm ? saved.q : q, rotated_k = k_norm ? saved.k : k;
  if (q_norm && keep == Keep::rebuilt) {
    rotated_q = step.temporary(step.dtype, q.shape());
    rotated_k = step.temporary(step.dtype, k.shape());
    rotate(step, rotated_q, saved.q_rstd, q, q_norm, rope);
    rotate(step, rotated_k, saved.k_rstd, k, k_norm, rope);
  }
  const Tensor dout = step.temporary(step.dtype, {tokens, heads * head_dim});
  output.backward(step, dout, dx, saved.out.view({tokens, heads * head_dim}));

  const Tensor dprojected = step.temporary(step.dtype, saved.projected.shape());
  const auto [dq, dk, dv] = split(dprojected);
  run(step.queue, AttentionBackward{.dq = dq,
                                    .dk = dk,
                                    .dv = dv,
                                    .dout = dout.view({tokens, heads, head_dim}),
                                    .q = rotated_q,
                                    .k = rotated_k,
                                    .v = v,
                                    .out = saved.out,
                                    .log_sum_exp = saved.log_sum_exp,
                                    .layout = self_attention(step.batch.documents),
                                    .scale = 1 / std::sqrt(static_cast<double>(head_dim)),
                                    .window = window});
  rotate_back(step, dq, saved.q_rstd, q, q_norm, rope);
  rotate_back(step, dk, saved.k_rstd, k, k_norm, rope);
  qkv.backward(step, dx, dprojected, saved.qkv);
}

std::vector<Parameter*> Attention::parameters() {
  std::vector<Parameter*> all = qkv.parameters();
  if (q_norm) all.push_back(&*q_norm);
  if (k_norm) all.push_back(&*k_norm);
  all.push_back(&output.weight);
  return all;
}

Attention make_attention(const ModelConfig& config, const TensorParallel& tensor, std::int64_t layer,
                         Keep keep) {
  const std::int64_t ranks = tensor.size(), rank = tensor.rank(), d = config.head_dim,
                     hidden = config.hidden_size;
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  Attention attention;
  attention.heads = config.heads / ranks;
  attention.kv_heads = std::max<std::int64_t>(1, config.kv_heads / ranks);
  attention.head_dim = d;
  attention.window = config.windows[static_cast<std::size_t>(layer)];
  attention.norm_eps = config.norm_eps;
  attention.keep = keep;
  // With fewer kv heads than ranks, ranks/kv_heads neighbours hold the same one.
  const std::int64_t kv_first =
      config.kv_heads >= ranks ? rank * attention.kv_heads : rank * config.kv_heads / ranks;

  Parameter& weight = attention.qkv.linear.weight;
  weight.name = prefix + "self_attn.qkv";
  weight.shape = {(attention.heads + 2 * attention.kv_heads) * d, hidden};
  const auto add = [&](const char* which, std::int64_t total, std::int64_t first, std::int64_t count,
                       std::int64_t local) {
    weight.slices.push_back({.name = fmt::format("{}self_attn.{}_proj.weight", prefix, which),
                             .shape = {total * d, hidden},
                             .runs = row_block(first * d, count * d, hidden, local * d),
                             .init_deviation = config.initializer_range});
  };
  add("q", config.heads, rank * attention.heads, attention.heads, 0);
  add("k", config.kv_heads, kv_first, attention.kv_heads, attention.heads);
  add("v", config.kv_heads, kv_first, attention.kv_heads, attention.heads + attention.kv_heads);
  if (config.kv_heads < ranks) {
    weight.tensor_gradient = TensorGradient::kv_replicas;
    weight.replicated_row = attention.heads * d;
  }
  attention.qkv.norm = make_norm(config, tensor, prefix + "input_layernorm");
  attention.qkv.keep = keep;

  if (config.qk_norm) {
    const auto head_norm = [&](const char* which) {
      Parameter p;
      p.name = fmt::format("{}self_attn.{}_norm.weight", prefix, which);
      p.shape = {d};
      p.slices = {{.name = p.name, .shape = {d}, .runs = row_block(0, 1, d, 0), .init_mean = 1}};
      p.tensor_gradient =
          tensor.active() ? TensorGradient::partial : TensorGradient::complete;  // own heads only
      p.held_by_all_tensor_ranks = true;
      return p;
    };
    attention.q_norm = head_norm("q");
    attention.k_norm = head_norm("k");
  }

  Parameter& output = attention.output.weight;
  output.name = prefix + "self_attn.o_proj.weight";
  const std::int64_t width = config.heads * d, local = attention.heads * d;
  output.shape = {hidden, local};
  output.slices = {
      {.name = output.name,
       .shape = {hidden, width},
       .runs = column_block(hidden, width, rank * local, local),
       .init_deviation = config.initializer_range / std::sqrt(2.0 * static_cast<double>(config.layers))}};
  return attention;
}

}  // namespace verne
