#pragma once
#include <vector>

#include "verne/nn/config.hpp"
#include "verne/tensor/tensor.hpp"

namespace verne {

/// Cosines and sines of the rotary angles, times the attention factor, f32 [positions, rotary_dim / 2], on
/// the queue's device.
struct RopeTable {
  Tensor cos, sin;
};
/// The table's values on the host, computed in float32 as transformers does: cosines, then sines.
std::vector<float> rope_table_values(const RopeConfig& rope, std::int64_t positions);

}  // namespace verne
