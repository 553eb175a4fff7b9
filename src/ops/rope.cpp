#include "verne/ops/rope.hpp"

#include "checks.hpp"

namespace verne {
namespace {

void check_tables(const Checks& check, const Tensor& x, const Tensor& cos, const Tensor& sin,
                  const Tensor& positions) {
  const DType statistics = statistics_type(x.dtype());
  check.rank("cos", cos, 2);
  check.type("cos", cos, statistics);
  check.contiguous("cos", cos);
  check.dense("sin", sin, cos.shape());
  check.type("sin", sin, statistics);
  check.that(cos.size(1) > 0 && 2 * cos.size(1) <= x.size(2), "cos rotates {} of {} components of a head",
             2 * cos.size(1), x.size(2));
  check.dense("positions", positions, {x.size(0)});
  check.type("positions", positions, DType::i32);
}

void check_heads(const Checks& check, std::string_view argument, const Tensor& x) {
  check.rank(argument, x, 3);
  check.real(argument, x);
}

/// Bytes of the table rows that the tokens read.
double table_bytes(const Tensor& cos, const Tensor& positions) {
  return 2 * static_cast<double>(bytes_of(cos.dtype(), cos.size(1) * positions.count()));
}

}  // namespace

void RopeForward::check() const {
  const Checks check(kName);
  check_heads(check, "x", x);
  check.shape("y", y, x.shape());
  check.type("y", y, x.dtype());
  check_tables(check, x, cos, sin, positions);
  if (weight) {
    check.dense("weight", weight, {x.size(2)});
    check.type("weight", weight, x.dtype());
    check.dense("rstd", rstd, {x.size(0), x.size(1)});
    check.type("rstd", rstd, statistics_type(x.dtype()));
    check.that(x.raw() != y.raw(), "y lies on x, which the norm's backward needs");
  } else {
    check.absent("rstd", rstd, "without a norm");
  }
}
Cost RopeForward::cost() const {
  const auto elements = static_cast<double>(x.count());
  return {.flops = (weight ? 7 : 3) * elements,
          .bytes = bytes({x, y, rstd, weight, positions}) + table_bytes(cos, positions)};
}
Access RopeForward::access() const {
  return {.reads = present({x, weight, cos, sin, positions}), .writes = present({y, rstd})};
}

void RopeBackward::check() const {
  const Checks check(kName);
  check_heads(check, "dy", dy);
  check.shape("dx", dx, dy.shape());
  check.type("dx", dx, dy.dtype());
  check_tables(check, dy, cos, sin, positions);
  if (weight) {
    const DType statistics = statistics_type(dy.dtype());
    check.shape("x", x, dy.shape());
    check.type("x", x, dy.dtype());
    check.dense("weight", weight, {dy.size(2)});
    check.type("weight", weight, dy.dtype());
    check.dense("rstd", rstd, {dy.size(0), dy.size(1)});
    check.type("rstd", rstd, statistics);
    if (dweight) {
      check.dense("dweight", dweight, {dy.size(2)});
      check.type("dweight", dweight, statistics);
    }
  } else {
    check.absent("x", x, "without a norm");
    check.absent("rstd", rstd, "without a norm");
    check.absent("dweight", dweight, "without a norm");
  }
}
Cost RopeBackward::cost() const {
  const auto elements = static_cast<double>(dy.count());
  return {.flops = (weight ? 14 : 3) * elements,
          .bytes = bytes({dy, dx, x, rstd, weight, positions}) + table_bytes(cos, positions) +
                   bytes({dweight}) * (accumulate_dweight == Accumulate::yes ? 2 : 1)};
}
Access RopeBackward::access() const {
  return {.reads = present({dy, x, rstd, weight, cos, sin, positions, added_to(dweight, accumulate_dweight)}),
          .writes = present({dx, dweight})};
}

}  // namespace verne
