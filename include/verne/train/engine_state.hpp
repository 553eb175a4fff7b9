#pragma once
#include "verne/checkpoint/checkpoint.hpp"
#include "verne/checkpoint/reader.hpp"
#include "verne/train/engine.hpp"

namespace verne {

/// What a checkpoint holds of an engine: all weights in the engine's dtype, and, where it is resumable, the
/// optimizer's state of what trains. This rank's part of it; values and side files are the caller's.
CheckpointContent engine_state(Engine& engine, CheckpointKind kind);

/// Fills an engine of any layout from a resumable checkpoint: what trains from the optimizer's state, which
/// its weights follow, and what is frozen from the weights. Collective over `world`, all ranks of the
/// engine's layout.
void restore_engine(Engine& engine, const CheckpointReader& reader, const HostGroup& world);

}  // namespace verne
