#include "verne/nn/model_tensors.hpp"

#include "verne/comm/single_communicator.hpp"
#include "verne/nn/model.hpp"

namespace verne {

std::vector<ModelTensor> model_tensors(const ModelConfig& config) {
  SingleCommunicator alone("tensor");
  Model model(config, {.communicator = &alone}, whole_model(config), Recompute::none);
  std::vector<ModelTensor> tensors;
  for (const Parameter* p : model.parameters())
    for (const ParameterSlice& slice : p->slices) tensors.push_back({slice.name, slice.shape});
  return tensors;
}

std::int64_t parameter_count(const ModelConfig& config) {
  std::int64_t total = 0;
  for (const ModelTensor& tensor : model_tensors(config)) total += tensor.shape.count();
  return total;
}

TrainingFlops::TrainingFlops(const ModelConfig& config)
    : per_pair_(3 * 4 * static_cast<double>(config.heads * config.head_dim)) {
  for (const ModelTensor& tensor : model_tensors(config)) {
    const bool looked_up = tensor.name == kEmbeddingName && !config.tied;
    if (tensor.shape.rank() == 2 && !looked_up) per_token_ += 6 * static_cast<double>(tensor.shape.count());
  }
  for (const std::int64_t window : config.windows) ++layers_of_window_[window];
}

double TrainingFlops::operator()(std::span<const std::int64_t> document_lengths) const {
  double flops = 0;
  for (const std::int64_t length : document_lengths) {
    flops += per_token_ * static_cast<double>(length);
    for (const auto& [window, layers] : layers_of_window_)
      flops += per_pair_ * static_cast<double>(layers * visible_pairs(length, length, window));
  }
  return flops;
}

}  // namespace verne
