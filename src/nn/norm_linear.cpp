#include "verne/nn/norm_linear.hpp"

namespace verne {

Operand NormLinear::normalise(Step& step, Stream& stream, Saved& saved) const {
  const Shape shape = stream.sum.shape();
  Operand normalised;
  if (keep == Keep::stored && linear.needs_input()) {
    normalised = saved.normalised = step.save(step.dtype, shape);
  } else {
    normalised = step.temporary(step.dtype, shape);
  }
  norm.forward(step, normalised, stream, saved.norm);
  return gather_stream(step, normalised);
}

void NormLinear::forward(Step& step, const Tensor& y, Stream& stream, Saved& saved) const {
  const ArenaScope scope(step.scratch);
  linear.multiply(step, y, normalise(step, stream, saved), linear.all());
}

Operand NormLinear::input(Step& step, const Saved& saved) const {
  if (keep == Keep::stored || !linear.needs_input()) return saved.normalised;
  const Operand normalised = step.temporary(step.dtype, saved.norm.s.shape());
  norm.rebuild(step, normalised, saved.norm);
  return normalised;
}

void NormLinear::backward(Step& step, const Tensor& dx, const Tensor& dy, const Saved& saved) const {
  const ArenaScope scope(step.scratch);
  const Operand normalised = input(step, saved);
  const Tensor dnormalised = step.temporary(step.dtype, dx.shape());
  linear.backward(step, dnormalised, dy, normalised);
  norm.backward(step, dx, dnormalised, saved.norm);
}

void NormLinear::add_parameters(std::vector<Parameter*>& all) {
  norm.add_parameters(all);
  linear.add_parameters(all);
}

}  // namespace verne
