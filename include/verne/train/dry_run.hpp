#pragma once
#include "verne/train/hardware.hpp"
#include "verne/train/trainer.hpp"

namespace verne {

/// Prints what a run would do: the resolved deck, who runs where, the batch arithmetic, memory by kind and the first batch
/// decoded with trained and untrained tokens told apart. Collective.
void show_dry_run(const Run& run, DeviceKind device);

}  // namespace verne
