#pragma once
#include "verne/tensor/dtype.hpp"

namespace verne::testing {

/// How far two results of one operation may lie apart, relative in norm.
struct Tolerance {
  double parity;    ///< another device's kernel against the CPU's, equal storage
  double formula;   ///< a CPU kernel against the formula in float64 on the same inputs
  double gradient;  ///< a backward against central differences (float64 alone)
};

constexpr Tolerance tolerance(DType type) {
  switch (type) {
    case DType::f64:
      return {.parity = 1e-12, .formula = 1e-12, .gradient = 1e-7};
    case DType::f32:
      return {.parity = 1e-5, .formula = 1e-6, .gradient = 0};
    default:
      return {.parity = 1e-2, .formula = 8e-3, .gradient = 0};  // 16-bit storage
  }
}

}  // namespace verne::testing
