#pragma once
#include "verne/train/run.hpp"

namespace verne {

/// Prints what a run would do: the resolved deck, who runs where, the batch arithmetic, memory by kind and
/// the first batch decoded with trained and untrained tokens told apart. Collective.
void show_dry_run(const Run& run);

}  // namespace verne
