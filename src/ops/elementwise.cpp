#include "verne/ops/elementwise.hpp"

#include "checks.hpp"

namespace verne {
namespace {

void check_float(const Checks& check, std::string_view argument, const Tensor& tensor) {
  check.type(argument, tensor, {DType::f32, DType::bf16, DType::f16, DType::f64});
}

}  // namespace

void Fill::check() const {
  const Checks check(kName);
  check.shape("y", y, y.shape());
  check_float(check, "y", y);
}
Cost Fill::cost() const {
  return {.flops = 0, .bytes = bytes({y})};
}
Access Fill::access() const {
  return {.writes = present({y})};
}

void Cast::check() const {
  const Checks check(kName);
  check.shape("x", x, x.shape());
  check_float(check, "x", x);
  check.shape("y", y, x.shape());
  check_float(check, "y", y);
}
Cost Cast::cost() const {
  return {.flops = 0, .bytes = bytes({x, y})};
}
Access Cast::access() const {
  return {.reads = present({x}), .writes = present({y})};
}

void Add::check() const {
  const Checks check(kName);
  check.real("a", a);
  check.dense("a", a, a.shape());
  check.dense("b", b, a.shape());
  check.type("b", b, a.dtype());
  check.dense("y", y, a.shape());
  check.type("y", y, a.dtype());
}
Cost Add::cost() const {
  return {.flops = static_cast<double>(y.count()), .bytes = bytes({y, a, b})};
}
Access Add::access() const {
  return {.reads = present({a, b}), .writes = present({y})};
}

void RandomNormal::check() const {
  const Checks check(kName);
  check.that(y.rank() == 1 || y.rank() == 2, "y {} is neither vector nor matrix", y.shape().text());
  check.shape("y", y, y.shape());
  check.real("y", y);
  const std::int64_t columns = y.size(y.rank() - 1);
  check.that(y.rank() == 2 || y.contiguous(), "y is a vector strided by {}", y.stride());
  check.that(first_row >= 0 && first_column >= 0 && first_column + columns <= row_length,
             "columns {}+{} from row {} of rows of {}", first_column, columns, first_row, row_length);
}
Cost RandomNormal::cost() const {
  return {.flops = 100 * static_cast<double>(y.count()), .bytes = bytes({y})};
}
Access RandomNormal::access() const {
  return {.writes = present({y})};
}

}  // namespace verne
