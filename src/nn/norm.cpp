#include "verne/nn/norm.hpp"

#include "verne/ops/rms_norm.hpp"
#include "verne/ops/run.hpp"

namespace verne {
namespace {
constexpr double kGainOffset = 1;  // layernorm1p stores the gain less one
}

void Norm::forward(Step& step, const Operand& y, Stream& stream, Saved& saved) const {
  const std::int64_t rows = stream.sum.size(0);
  const Tensor sum = stream.delta ? step.save(step.dtype, stream.sum.shape()) : Tensor{};
  saved.rstd = step.save(DType::f32, {rows});
  if (kind == NormKind::rms) {
    run(step.queue, RmsNormForward{.y = y,
                                   .rstd = saved.rstd,
                                   .sum = sum,
                                   .x = stream.sum,
                                   .residual = stream.delta,
                                   .weight = step.weight(weight).data,
                                   .eps = eps});
  } else {
    saved.mean = step.save(DType::f32, {rows});
    run(step.queue, LayerNormForward{.y = y,
                                     .mean = saved.mean,
                                     .rstd = saved.rstd,
                                     .sum = sum,
                                     .x = stream.sum,
                                     .residual = stream.delta,
                                     .weight = step.weight(weight).data,
                                     .bias = step.weight(bias).data,
                                     .eps = eps,
                                     .weight_offset = kGainOffset});
  }
  if (sum) stream.sum = sum;
  stream.delta = {};
  saved.s = stream.sum;
}

void Norm::rebuild(Step& step, const Operand& y, const Saved& saved) const {
  const ArenaScope scope(step.scratch);
  const Tensor rstd = step.temporary(DType::f32, saved.rstd.shape());
  if (kind == NormKind::rms) {
    run(step.queue,
        RmsNormForward{.y = y, .rstd = rstd, .x = saved.s, .weight = step.weight(weight).data, .eps = eps});
  } else {
    const Tensor mean = step.temporary(DType::f32, saved.rstd.shape());
    run(step.queue, LayerNormForward{.y = y,
                                     .mean = mean,
                                     .rstd = rstd,
                                     .x = saved.s,
                                     .weight = step.weight(weight).data,
                                     .bias = step.weight(bias).data,
                                     .eps = eps,
                                     .weight_offset = kGainOffset});
  }
}

void Norm::backward(Step& step, const Tensor& dx, const Tensor& dy, const Saved& saved, Branch branch) const {
  const Tensor dsum = branch == Branch::joins ? dx : Tensor{};
  const auto gradient = [&](const Parameter& p) { return p.trainable ? step.grad(p) : Gradient{}; };
  if (kind == NormKind::rms) {
    const Gradient dweight = gradient(weight);
    run(step.queue, RmsNormBackward{.dx = dx,
                                    .dweight = dweight.tensor,
                                    .accumulate_dweight = dweight.accumulate,
                                    .dy = dy,
                                    .dsum = dsum,
                                    .s = saved.s,
                                    .rstd = saved.rstd,
                                    .weight = step.weight(weight).data});
    step.grad_done(weight);
    return;
  }
  const Gradient dweight = gradient(weight), dbias = gradient(bias);
  run(step.queue, LayerNormBackward{.dx = dx,
                                    .dweight = dweight.tensor,
                                    .dbias = dbias.tensor,
                                    .accumulate_dweight = dweight.accumulate,
                                    .accumulate_dbias = dbias.accumulate,
                                    .dy = dy,
                                    .dsum = dsum,
                                    .s = saved.s,
                                    .mean = saved.mean,
                                    .rstd = saved.rstd,
                                    .weight = step.weight(weight).data,
                                    .weight_offset = kGainOffset});
  step.grad_done(weight);
  step.grad_done(bias);
}

void Norm::add_parameters(std::vector<Parameter*>& all) {
  all.push_back(&weight);
  if (kind == NormKind::layer_norm_1p) all.push_back(&bias);
}

Norm make_norm(const ModelConfig& config, const TensorParallel& tensor, const std::string& name) {
  const std::int64_t width = config.hidden_size;
  const auto vector = [&](const std::string& suffix, double mean) {
    Parameter p;
    p.name = name + suffix;
    p.shape = {width};
    p.slices = {{.name = p.name, .shape = {width}, .runs = row_block(0, 1, width, 0), .init_mean = mean}};
    p.placement.copies = tensor.stream_copies();
    return p;
  };
  Norm norm;
  norm.kind = config.norm;
  norm.eps = config.norm_eps;
  norm.weight = vector(".weight", config.norm == NormKind::rms ? 1.0 : 0.0);
  if (config.norm == NormKind::layer_norm_1p) norm.bias = vector(".bias", 0.0);
  return norm;
}

}  // namespace verne
