#include "verne/nn/mlp.hpp"

#include <cmath>

#include "verne/ops/activation.hpp"
#include "verne/ops/run.hpp"

namespace verne {

void Mlp::activate(Step& step, const Tensor& y, const Tensor& projected) const {
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
  const Tensor activated = keep == Keep::stored ? saved.activated = step.save(step.dtype, shape)
                                                : step.temporary(step.dtype, shape);
  activate(step, activated, saved.projected);
  down.forward(step, stream.buffer, activated);
  stream.delta = stream.buffer;
}

void Mlp::backward(Step& step, const Tensor& dx, const Saved& saved) const {
  const ArenaScope scope(step.scratch);
  const Shape shape = {step.tokens(), inner()};
  Tensor activated = saved.activated;
  if (keep == Keep::rebuilt) {
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

std::vector<Parameter*> Mlp::parameters() {
  std::vector<Parameter*> all = up.parameters();
  all.push_back(&down.weight);
  return all;
}

Mlp make_mlp(const ModelConfig& config, const TensorParallel& tensor, std::int64_t layer, Keep keep) {
  const std::int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const std::int64_t local = inner / tensor.size(), first = tensor.rank() * local;
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  Mlp mlp;
  mlp.kind = config.mlp;
  mlp.keep = keep;
  Parameter& up = mlp.up.linear.weight;
  const auto add = [&](const char* which, std::int64_t local_row) {
    up.slices.push_back({.name = fmt::format("{}mlp.{}_proj.weight", prefix, which),
                         .shape = {inner, hidden},
                         .runs = row_block(first, local, hidden, local_row),
                         .init_deviation = config.initializer_range});
  };
  if (config.mlp == MlpKind::swiglu) {
    up.name = prefix + "mlp.gate_up";
    up.shape = {2 * local, hidden};
    add("gate", 0);
    add("up", local);
  } else {
    up.name = prefix + "mlp.up_proj.weight";
    up.shape = {local, hidden};
    add("up", 0);
  }
  mlp.up.norm = make_norm(config, tensor, prefix + "post_attention_layernorm");
  mlp.up.keep = keep;
  Parameter& down = mlp.down.weight;
  down.name = prefix + "mlp.down_proj.weight";
  down.shape = {hidden, local};
  down.slices = {
      {.name = down.name,
       .shape = {hidden, inner},
       .runs = column_block(hidden, inner, first, local),
       .init_deviation = config.initializer_range / std::sqrt(2.0 * static_cast<double>(config.layers))}};
  return mlp;
}

}  // namespace verne
