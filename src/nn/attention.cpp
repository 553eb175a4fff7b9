#include "verne/nn/attention.hpp"

#include <cmath>

#include "verne/ops/elementwise.hpp"
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

  KeyValueGather gather(step, {rotated_k, v});
  {
    const ArenaScope projection(step.scratch);
    const Operand x = qkv.normalise(step, stream, saved.qkv);
    const auto project = [&](Rows rows) {
      qkv.linear.multiply(step, saved.projected.columns(rows.first, rows.count), x, rows);
    };
    // With other context ranks keys and values come first, and travel while the queries are made.
    const bool apart = step.context.active();
    project(apart ? key_value_rows() : qkv.linear.all());
    rotate(step, rotated_k, saved.k_rstd, k, k_norm, rope);
    gather.start(step);
    if (apart) project(query_rows());
    rotate(step, rotated_q, saved.q_rstd, q, q_norm, rope);
  }
  const KeysValues keys = gather.ready(step);

  saved.out = step.save(step.dtype, {tokens, heads * head_dim});
  saved.log_sum_exp = step.save(DType::f32, {tokens * heads});
  for (const AttentionPart& part : step.batch.attention)
    run(step.queue,
        AttentionForward{.out = saved.out.data.view(q.shape()).rows(part.first, part.count),
                         .log_sum_exp = saved.log_sum_exp.rows(part.first * heads, part.count * heads),
                         .q = rotated_q.rows(part.first, part.count),
                         .k = keys.k,
                         .v = keys.v,
                         .layout = part.layout,
                         .scale = 1 / std::sqrt(static_cast<double>(head_dim)),
                         .window = window});
  output.forward(step, stream.buffer, saved.out);
  stream.delta = stream.buffer;
}

Attention::Heads Attention::rotated(Step& step, const RopeTable& rope, const Saved& saved) const {
  Heads rotated = split(saved.projected);
  if (!q_norm) return rotated;
  const auto [q, k, v] = rotated;
  rotated.q = saved.q;
  rotated.k = saved.k;
  if (keep == Keep::rebuilt) {
    rotated.q = step.temporary(step.dtype, q.shape());
    rotated.k = step.temporary(step.dtype, k.shape());
    rotate(step, rotated.q, saved.q_rstd, q, q_norm, rope);
    rotate(step, rotated.k, saved.k_rstd, k, k_norm, rope);
  }
  return rotated;
}

void Attention::attend_back(Step& step, const AttentionPart& part, const Tensor& dq, const KeysValues& dkeys,
                            const Tensor& dout, const Tensor& q, const KeysValues& keys,
                            const Saved& saved) const {
  const auto rows = [&](const Tensor& heads_of_all) { return heads_of_all.rows(part.first, part.count); };
  run(step.queue,
      AttentionBackward{.dq = rows(dq),
                        .dk = dkeys.k,
                        .dv = dkeys.v,
                        .dout = rows(dout.view(q.shape())),
                        .q = rows(q),
                        .k = keys.k,
                        .v = keys.v,
                        .out = rows(saved.out.data.view(q.shape())),
                        .log_sum_exp = saved.log_sum_exp.rows(part.first * heads, part.count * heads),
                        .layout = part.layout,
                        .scale = 1 / std::sqrt(static_cast<double>(head_dim)),
                        .window = window});
}

void Attention::backward(Step& step, const Tensor& dx, const RopeTable& rope, const Saved& saved) const {
  const ArenaScope scope(step.scratch);
  const Heads own = rotated(step, rope, saved);
  KeyValueGather gather(step, {own.k, own.v});
  gather.start(step);  // travels while dout is made
  const Tensor dout = step.temporary(step.dtype, saved.out.data.shape());
  output.backward(step, dout, dx, saved.out);
  const Tensor dnormalised = step.temporary(step.dtype, dx.shape());
  const KeysValues keys = gather.ready(step);
  if (step.context.active()) {
    backward_gathered(step, dnormalised, dout, rope, saved, own.q, keys);
  } else {
    backward_alone(step, dnormalised, dout, rope, saved, own.q, keys);
  }
  qkv.norm.backward(step, dx, dnormalised, saved.qkv.norm);
}

void Attention::backward_alone(Step& step, const Tensor& dnormalised, const Tensor& dout,
                               const RopeTable& rope, const Saved& saved, const Tensor& rotated_q,
                               const KeysValues& keys) const {
  const auto [q, k, v] = split(saved.projected);
  const Tensor dprojected = step.temporary(step.dtype, saved.projected.shape());
  const auto [dq, dk, dv] = split(dprojected);
  attend_back(step, step.batch.attention.front(), dq, {dk, dv}, dout, rotated_q, keys, saved);
  rotate_back(step, dq, saved.q_rstd, q, q_norm, rope);
  rotate_back(step, dk, saved.k_rstd, k, k_norm, rope);
  qkv.linear.backward(step, dnormalised, dprojected, qkv.input(step, saved.qkv));
}

void Attention::backward_gathered(Step& step, const Tensor& dnormalised, const Tensor& dout,
                                  const RopeTable& rope, const Saved& saved, const Tensor& rotated_q,
                                  const KeysValues& keys) const {
  const auto [q, k, v] = split(saved.projected);
  const Tensor dprojected = step.temporary(step.dtype, saved.projected.shape());
  const auto [dq, dk, dv] = split(dprojected);
  const Rows queries = query_rows(), others = key_value_rows();
  // Each part sees keys of its own and of every other part: their gradients are added.
  const Shape all_keys = {step.batch.key_count, others.count};
  const Tensor dkeys = step.temporary(step.dtype, all_keys), more = step.temporary(step.dtype, all_keys);
  for (const AttentionPart& part : step.batch.attention) {
    const bool first = &part == &step.batch.attention.front();
    attend_back(step, part, dq, halves_of(first ? dkeys : more, keys), dout, rotated_q, keys, saved);
    if (!first) run(step.queue, Add{.y = dkeys, .a = dkeys, .b = more});
  }
  KeyValueScatter scatter(step, dkeys);

  // Beside it the queries' half of the projection.
  rotate_back(step, dq, saved.q_rstd, q, q_norm, rope);
  ColumnLinear::Backward project(step, qkv.linear, dnormalised, qkv.input(step, saved.qkv));
  const Tensor dq_columns = dprojected.columns(queries.first, queries.count);
  const Tensor dkv_columns = dprojected.columns(others.first, others.count);
  project.input(dq_columns, queries);
  project.weight(dq_columns, queries);
  scatter.ready(step, {dk, dv});
  rotate_back(step, dk, saved.k_rstd, k, k_norm, rope);
  project.input(dkv_columns, others);
  project.reduce();
  project.weight(dkv_columns, others);
  project.finish();
}

void Attention::add_parameters(std::vector<Parameter*>& all) {
  qkv.add_parameters(all);
  if (q_norm) all.push_back(&*q_norm);
  if (k_norm) all.push_back(&*k_norm);
  output.add_parameters(all);
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
  if (config.kv_heads < ranks)
    weight.placement = {.copies = Placement::Copies::kv_heads, .first_copied_row = attention.heads * d};
  auto& bias = attention.qkv.linear.bias;
  if (config.qkv_bias) {
    bias.emplace();
    bias->name = weight.name + ".bias";
    bias->shape = {weight.shape[0]};
    bias->placement = weight.placement;
  }
  const auto add = [&](const char* which, std::int64_t total, std::int64_t first, std::int64_t count,
                       std::int64_t local) {
    const std::string name = fmt::format("{}self_attn.{}_proj", prefix, which);
    weight.slices.push_back({.name = name + ".weight",
                             .shape = {total * d, hidden},
                             .runs = row_block(first * d, count * d, hidden, local * d),
                             .init_deviation = config.initializer_range});
    if (bias)
      bias->slices.push_back({.name = name + ".bias",
                              .shape = {total * d},
                              .runs = row_block(first * d, count * d, 1, local * d)});
  };
  add("q", config.heads, rank * attention.heads, attention.heads, 0);
  add("k", config.kv_heads, kv_first, attention.kv_heads, attention.heads);
  add("v", config.kv_heads, kv_first, attention.kv_heads, attention.heads + attention.kv_heads);
  attention.qkv.norm = make_norm(config, tensor, prefix + "input_layernorm");
  attention.qkv.keep = keep;

  if (config.qk_norm) {
    const auto head_norm = [&](const char* which) {
      Parameter p;
      p.name = fmt::format("{}self_attn.{}_norm.weight", prefix, which);
      p.shape = {d};
      p.slices = {{.name = p.name, .shape = {d}, .runs = row_block(0, 1, d, 0), .init_mean = 1}};
      if (tensor.active()) p.placement.copies = Placement::Copies::partial;  // each rank sees its own heads
      return p;
    };
    attention.q_norm = head_norm("q");
    attention.k_norm = head_norm("k");
  }

  attention.output =
      make_row_linear(config, tensor, prefix + "self_attn.o_proj", config.heads * d, config.o_bias);
  return attention;
}

}  // namespace verne
