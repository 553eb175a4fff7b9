#include "verne/host/load_weights.hpp"

#include "verne/io/load.hpp"

namespace verne {

void load_weights(const ModelSource& model, const HostGroup& world, ModelHost& host,
                  ParameterStore::Which which) {
  check_duplicates(model.weights(), duplicate_tensors(model.config()), world);
  load_parts(model.weights(), world, host.runtime().compute(), host.loadable_parts(DType::f32, which));
  host.weights_loaded();
}

}  // namespace verne
