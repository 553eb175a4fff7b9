#pragma once
#include <nlohmann/json.hpp>

#include "verne/host/parallel_runtime.hpp"

namespace verne {

/// The matmul algorithms that measurement chose on this rank's queue, as JSON; empty off GPUs.
nlohmann::ordered_json choices(ParallelRuntime& runtime);
void take_choices(ParallelRuntime& runtime, const nlohmann::ordered_json& stored);
/// All ranks take over what the first rank of each pipeline stage measured, so that replicas agree.
/// Collective over the world.
void share_choices(ParallelRuntime& runtime, const HostGroup& world);

}  // namespace verne
