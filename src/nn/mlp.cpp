#include "verne/nn/mlp.hpp"

#include "verne/ops/activation.hpp"
#include "verne/ops/run.hpp"

namespace verne {

void Mlp::activate(Step& step, const Operand& y, const Tensor& projected) const {
  if (kind == MlpKind::swiglu) {
    run(step.queue, SwiGluForward{.y = y, .gate_up = projected});
  } else {
    run(step.queue, SquaredReluForward{.y = y, .x = projected});
  }
}

void Mlp::forward(Step& step, Stream& stream, Saved& saved) const {
  const ArenaScope scope(step.scratch);
  saved.projected = step.save(step.dtype, {step.tokens(), up.linear.weight.shape[0]});
  up.forward(step, saved.projected, stream, saved.up);
  const Shape shape = {step.tokens(), inner()};
  Operand activated;
  if (keep == Keep::stored && down.needs_input()) {
    activated = saved.activated = step.save(step.dtype, shape);
  } else {
    activated = step.temporary(step.dtype, shape);
  }
  activate(step, activated, saved.projected);
  down.forward(step, stream.buffer, activated);
  stream.delta = stream.buffer;
}

void Mlp::backward(Step& step, const Tensor& dx, const Saved& saved) const {
  const ArenaScope scope(step.scratch);
  const Shape shape = {step.tokens(), inner()};
  Operand activated = saved.activated;
  if (keep == Keep::rebuilt && down.needs_input()) {
    activated = step.temporary(step.dtype, shape);
    activate(step, activated, saved.projected);
  }
  const Tensor dactivated = step.temporary(step.dtype, shape);
  down.backward(step, dactivated, dx, activated);
  const Tensor dprojected = step.temporary(step.dtype, saved.projected.shape());
  if (kind == MlpKind::swiglu) {
    run(step.queue, SwiGluBackward{.dgate_up = dprojected, .dy = dactivated, .gate_up = saved.projected});
  } else {
    run(step.queue, SquaredReluBackward{.dx = dprojected, .dy = dactivated, .x = saved.projected});
  }
  up.backward(step, dx, dprojected, saved.up);
}

void Mlp::add_parameters(std::vector<Parameter*>& all) {
  up.add_parameters(all);
  down.add_parameters(all);
}

Mlp make_mlp(const ModelConfig& config, const TensorParallel& tensor, std::int64_t layer, Keep keep) {
  const std::int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const std::int64_t local = inner / tensor.size(), first = tensor.rank() * local;
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  Mlp mlp;
  mlp.kind = config.mlp;
  mlp.keep = keep;
  const bool gated = config.mlp == MlpKind::swiglu;
  Parameter& up = mlp.up.linear.weight;
  up.name = prefix + (gated ? "mlp.gate_up" : "mlp.up_proj");
  up.shape = {(gated ? 2 : 1) * local, hidden};
  if (config.mlp_bias) {
    mlp.up.linear.bias.emplace();
    mlp.up.linear.bias->name = up.name + ".bias";
    mlp.up.linear.bias->shape = {up.shape[0]};
  }
  const auto add = [&](const char* which, std::int64_t local_row) {
    const std::string name = fmt::format("{}mlp.{}_proj", prefix, which);
    up.slices.push_back({.name = name + ".weight",
                         .shape = {inner, hidden},
                         .runs = row_block(first, local, hidden, local_row),
                         .init_deviation = config.initializer_range});
    if (config.mlp_bias)
      mlp.up.linear.bias->slices.push_back(
          {.name = name + ".bias", .shape = {inner}, .runs = row_block(first, local, 1, local_row)});
  };
  if (gated) add("gate", 0);
  add("up", gated ? local : 0);
  mlp.up.norm = make_norm(config, tensor, prefix + "post_attention_layernorm");
  mlp.up.keep = keep;
  mlp.down = make_row_linear(config, tensor, prefix + "mlp.down_proj", inner, config.mlp_bias);
  return mlp;
}

}  // namespace verne
