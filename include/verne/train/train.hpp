#pragma once
#include "verne/base/error.hpp"
#include "verne/train/run.hpp"

namespace verne {

/// The verb `train`: opens model and data, trains to the last step or to a stop in good order, and exports
/// where the deck says so. Collective.
ExitCode train(const TrainRequest& request);

}  // namespace verne
