#pragma once
#include "verne/comm/host_group.hpp"
#include "verne/host/model_host.hpp"
#include "verne/host/model_source.hpp"

namespace verne {

/// The model's stored weights into the host: each rank takes the block that it owns, and the ranks of a
/// reduce group gather the rest. Collective.
void load_weights(const ModelSource& model, const HostGroup& world, ModelHost& host,
                  ParameterStore::Which which = ParameterStore::Which::all);

}  // namespace verne
