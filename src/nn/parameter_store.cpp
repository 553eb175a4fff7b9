#include "verne/nn/parameter_store.hpp"

#include "verne/base/checked.hpp"

namespace verne {
namespace {
constexpr std::int64_t kAlignment = 64;  // elements: 128 bytes of bf16
}

ParameterStore::ParameterStore(Queue& queue, const std::vector<Parameter*>& parameters, DType dtype,
                               int data_ranks, std::int64_t bucket_elements, Purpose purpose)
    : parameters_(parameters), places_(parameters.size()), dtype_(dtype) {
  for (std::size_t i = 0; i < parameters_.size(); ++i) parameters_[i]->index = static_cast<int>(i);
  const auto close = [&] {
    if (buckets_.empty()) return;
    Bucket& bucket = buckets_.back();
    bucket.size = round_up(elements_ - bucket.begin, kAlignment * data_ranks);
    elements_ = bucket.begin + bucket.size;
  };
  const auto place_all = [&](bool partial) {
    bool open = false;
    for (std::size_t i = parameters_.size(); i-- > 0;) {
      const Parameter& p = *parameters_[i];
      if ((p.tensor_gradient == TensorGradient::partial) != partial) continue;
      if (!open || elements_ - buckets_.back().begin >= bucket_elements) {
        close();
        buckets_.push_back({.begin = elements_, .partial = partial});
        open = true;
      }
      places_[i] = {.bucket = static_cast<int>(buckets_.size()) - 1, .offset = elements_};
      buckets_.back().parameters.push_back(p.index);
      elements_ += round_up(p.shape.count(), kAlignment);
    }
  };
  place_all(false);
  place_all(true);
  close();
  weights_ = Buffer(queue, dtype, {elements_}, MemoryKind::weights);
  queue.zero(weights_.tensor());
  if (purpose == Purpose::inference) return;
  gradients_ = Buffer(queue, DType::f32, {elements_}, MemoryKind::gradients);
  queue.zero(gradients_.tensor());
}

Tensor ParameterStore::weight(const Parameter& parameter) const {
  return flat_weights().rows(offset(parameter), parameter.shape.count()).view(parameter.shape);
}
Tensor ParameterStore::gradient(const Parameter& parameter) const {
  return gradients_.tensor().rows(offset(parameter), parameter.shape.count()).view(parameter.shape);
}
Tensor ParameterStore::weights(const Bucket& bucket) const {
  return flat_weights().rows(bucket.begin, bucket.size);
}
Tensor ParameterStore::gradients(const Bucket& bucket) const {
  return gradients_.tensor().rows(bucket.begin, bucket.size);
}

std::vector<TensorPart> ParameterStore::weight_parts(DType stored) const {
  std::vector<TensorPart> parts;
  for (const Parameter* p : parameters_) {
    for (const ParameterSlice& slice : p->slices)
      parts.push_back({.name = slice.name,
                       .dtype = stored,
                       .shape = slice.shape,
                       .local = flat_weights().rows(offset(*p), p->shape.count()),
                       .runs = slice.runs});
  }
  return parts;
}

}  // namespace verne
