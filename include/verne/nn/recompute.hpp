#pragma once

namespace verne {

/// What backward builds again instead of keeping.
enum class Recompute {
  none,
  selective,  ///< normalised tensors, rotated heads and activations: cheap to build, a third of the memory
  full        ///< everything but each layer's input
};

}  // namespace verne
