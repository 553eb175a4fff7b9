#pragma once
#include <string>
#include <vector>

#include "verne/ops/launch.hpp"

namespace verne {

enum class Transpose : bool { no, yes };

/// d = op(a)·op(b) + bias, or d += op(a)·op(b). op(x) is x or its transpose; op(a): [m, k], op(b): [k, n], d:
/// [m, n]. a and b share a dtype (f32, bf16; f64 on the CPU); d has it too, or is f32. bias [n] (may be
/// empty; not where d is added to) has a's dtype and is added to every row. Sums are in float32 (float64 for
/// f64), the bias in them, and rounded once; CUDA rounds twice where its library does not take the bias
/// along. Rows may be strided.
struct Matmul {
  static constexpr const char* kName = "Matmul";
  Tensor d;      // out
  Operand a, b;  // in
  Tensor bias;   // in; may be empty
  Transpose transpose_a = Transpose::no, transpose_b = Transpose::no;
  Accumulate accumulate = Accumulate::no;

  std::int64_t m() const { return d.size(0); }
  std::int64_t n() const { return d.size(1); }
  std::int64_t k() const { return a.data.size(transpose_a == Transpose::yes ? 0 : 1); }
  void check() const;
  Cost cost() const;  // 2·m·n·k
  Access access() const;
};
void launch(CpuQueue&, const Matmul&);
void launch(CudaQueue&, const Matmul&);

/// The algorithms that measurement chose, one line of text a shape, in a form that another rank or a later
/// run can take over: replicas then agree, and a resumed run repeats its bits. CUDA only; a shape without a
/// choice is measured at its first launch.
std::vector<std::string> matmul_choices(CudaQueue&);
void take_matmul_choices(CudaQueue&, const std::vector<std::string>& choices);

}  // namespace verne
