#pragma once
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "fixture.hpp"

/// Cases of every operation on awkward shapes, in a form that runs on any queue: the CPU's tests compare
/// storage types and thread counts with them, the CUDA tests compare the devices.
namespace verne::testing {

struct Output {
  std::string name;
  Values values;
};

struct OpCase {
  std::string name;
  std::vector<DType> dtypes;  ///< storage types that it makes sense in (float64 on the CPU besides)
  /// Inputs depend on the case alone; every output is poisoned before.
  std::function<std::vector<Output>(Queue&, DType)> run;

  friend void PrintTo(const OpCase& one, std::ostream* out) { *out << one.name; }
};

enum class Rows { contiguous, strided };

/// Of float32 and bf16 storage, statistics and parameter gradients are float32.
inline DType statistics_type(DType storage) {
  return storage == DType::f64 ? DType::f64 : DType::f32;
}

inline std::vector<OpCase> norm_cases();         // cases_norm.hpp
inline std::vector<OpCase> rope_cases();         // cases_norm.hpp
inline std::vector<OpCase> matmul_cases();       // cases_matmul.hpp
inline std::vector<OpCase> attention_cases();    // cases_attention.hpp
inline std::vector<OpCase> elementwise_cases();  // cases_elementwise.hpp
inline std::vector<OpCase> vocabulary_cases();   // cases_vocabulary.hpp: embedding and cross-entropy
inline std::vector<OpCase> optimizer_cases();    // cases_elementwise.hpp

inline std::vector<OpCase> op_cases() {
  std::vector<OpCase> all;
  for (auto part : {norm_cases, rope_cases, matmul_cases, attention_cases, elementwise_cases,
                    vocabulary_cases, optimizer_cases}) {
    for (OpCase& one : part()) all.push_back(std::move(one));
  }
  return all;
}

}  // namespace verne::testing

#include "cases_attention.hpp"
#include "cases_elementwise.hpp"
#include "cases_matmul.hpp"
#include "cases_norm.hpp"
#include "cases_vocabulary.hpp"
