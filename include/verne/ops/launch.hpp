#pragma once
#include "verne/tensor/meta_trace.hpp"
#include "verne/tensor/tensor.hpp"

namespace verne {

class CpuQueue;
class CudaQueue;

/// Whether an operation overwrites its output or adds to it.
enum class Accumulate : bool { no, yes };

}  // namespace verne
