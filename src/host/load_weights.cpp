#include "verne/host/load_weights.hpp"

#include <map>

#include "verne/io/load.hpp"

namespace verne {

void load_weights(const ModelSource& model, const HostGroup& world, ModelHost& host,
                  ParameterStore::Which which) {
  check_duplicates(model.weights(), duplicate_tensors(model.config()), world);
  std::map<std::string_view, DType> stored;
  for (const TensorInfo& tensor : model.weights().tensors()) stored[tensor.name] = tensor.dtype;
  std::vector<TensorPart> parts = host.loadable_parts(DType::f32, which);
  for (TensorPart& part : parts)
    if (const auto found = stored.find(part.name); found != stored.end()) part.dtype = found->second;
  load_parts(model.weights(), world, host.runtime().compute(), parts);
  host.weights_loaded();
}

}  // namespace verne
