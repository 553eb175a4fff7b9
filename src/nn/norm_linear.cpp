#include "verne/nn/norm_linear.hpp"

namespace verne {

void NormLinear::forward(Step& step, const Tensor& y, Stream& stream, Saved& saved) const {
  const ArenaScope scope(step.scratch);
  const Shape shape = stream.sum.shape();
  Tensor normalised;
  if (keep == Keep::stored) {
    normalised = saved.normalised = step.save(step.dtype, shape);
  } else {
    normalised = step.temporary(step.dtype, shape);
  }
  norm.forward(step, normalised, stream, saved.norm);
  linear.forward(step, y, normalised);
}

void NormLinear::backward(Step& step, const Tensor& dx, const Tensor& dy, const Saved& saved) const {
  const ArenaScope scope(step.scratch);
  Tensor normalised = saved.normalised;
  if (keep == Keep::rebuilt) {
    normalised = step.temporary(step.dtype, dx.shape());
    norm.rebuild(step, normalised, saved.norm);
  }
  const Tensor dnormalised = step.temporary(step.dtype, dx.shape());
  linear.backward(step, dnormalised, dy, normalised);
  norm.backward(step, dx, dnormalised, saved.norm);
}

std::vector<Parameter*> NormLinear::parameters() {
  std::vector<Parameter*> all = norm.parameters();
  all.push_back(&linear.weight);
  return all;
}

}  // namespace verne
