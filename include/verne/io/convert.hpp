#pragma once
#include <cstddef>
#include <span>

#include "verne/tensor/dtype.hpp"

namespace verne {

/// Whether `convert` knows the pair: equal dtypes, or both of f32, bf16, f16, f64.
bool convertible(DType from, DType to);
/// Converts elements in host memory; rounds to nearest even. Both spans hold the same number of elements;
/// equal dtypes are copied bit for bit.
void convert(DType from, std::span<const std::byte> source, DType to, std::span<std::byte> target);

}  // namespace verne
