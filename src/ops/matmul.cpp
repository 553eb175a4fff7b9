#include "verne/ops/matmul.hpp"

#include "checks.hpp"

namespace verne {

void Matmul::check() const {
  const Checks check(kName);
  check.rank("a", a.data, 2);
  check.rank("b", b.data, 2);
  check.rank("d", d, 2);
  check.real("a", a.data);
  check.type("b", b.data, a.data.dtype());
  check.absent("a.scale", a.scale, "with an operand that is not quantised");
  check.absent("b.scale", b.scale, "with an operand that is not quantised");
  const auto matrix = [](Transpose transpose, std::int64_t rows, std::int64_t columns) {
    return transpose == Transpose::yes ? Shape{columns, rows} : Shape{rows, columns};
  };
  check.shape("a", a.data, matrix(transpose_a, m(), k()));
  check.shape("b", b.data, matrix(transpose_b, k(), n()));
  check.shape("d", d, {m(), n()});
  if (d.dtype() != a.data.dtype()) check.type("d", d, statistics_type(a.data.dtype()));
  if (!bias) return;
  check.dense("bias", bias, {n()});
  check.type("bias", bias, a.data.dtype());
  check.that(accumulate == Accumulate::no, "a bias where d is added to");
}

Cost Matmul::cost() const {
  const double products = static_cast<double>(m()) * static_cast<double>(n()) * static_cast<double>(k());
  return {.flops = 2 * products + (bias ? static_cast<double>(d.count()) : 0.0),
          .bytes = bytes({a.data, b.data, bias}) + bytes({d}) * (accumulate == Accumulate::yes ? 2 : 1)};
}
Access Matmul::access() const {
  return {.reads = present({a, b, bias, added_to(d, accumulate)}), .writes = present({d})};
}

}  // namespace verne
