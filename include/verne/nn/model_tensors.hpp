#pragma once
#include <map>
#include <span>
#include <string>
#include <vector>

#include "verne/nn/config.hpp"
#include "verne/tensor/tensor.hpp"

namespace verne {

/// A logical, unsharded tensor of a model, under its Hugging Face name.
struct ModelTensor {
  std::string name;
  Shape shape;
};
/// What the layers themselves hold, as one rank that has the whole model holds it: no padding, and no copy of
/// a tied head. In the order of transformers' modules.
std::vector<ModelTensor> model_tensors(const ModelConfig& config);

std::int64_t parameter_count(const ModelConfig& config);

/// Model FLOPs to train on documents: 6 per matmul weight and token, and causal attention within each
/// document (3 · forward).
class TrainingFlops {
 public:
  explicit TrainingFlops(const ModelConfig& config);
  double operator()(std::span<const std::int64_t> document_lengths) const;

 private:
  double per_token_ = 0, per_pair_ = 0;  ///< a pair: a query and a key that it sees, in one layer
  std::map<std::int64_t, std::int64_t> layers_of_window_;
};

}  // namespace verne
