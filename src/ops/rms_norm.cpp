#include "verne/ops/rms_norm.hpp"

#include "checks.hpp"

namespace verne {
namespace {

/// x and what has its shape and type.
void check_rows(const Checks& check, std::string_view argument, const Tensor& tensor, const Tensor& x) {
  check.dense(argument, tensor, x.shape());
  check.type(argument, tensor, x.dtype());
}

void check_gain(const Checks& check, std::string_view argument, const Tensor& gain, const Tensor& x) {
  check.dense(argument, gain, {x.size(1)});
  check.type(argument, gain, x.dtype());
}

void check_per_row(const Checks& check, std::string_view argument, const Tensor& statistic, const Tensor& x) {
  check.dense(argument, statistic, {x.size(0)});
  check.type(argument, statistic, statistics_type(x.dtype()));
}

void check_gain_gradient(const Checks& check, std::string_view argument, const Tensor& gradient,
                         const Tensor& x) {
  if (!gradient) return;
  check.dense(argument, gradient, {x.size(1)});
  check.type(argument, gradient, statistics_type(x.dtype()));
}

void check_input(const Checks& check, std::string_view argument, const Tensor& x) {
  check.rank(argument, x, 2);
  check.real(argument, x);
  check.contiguous(argument, x);
  check.that(x.size(1) > 0, "{} {} has no columns", argument, x.shape().text());
}

void check_sum(const Checks& check, const Tensor& sum, const Tensor& residual, const Tensor& x) {
  if (residual) {
    check_rows(check, "residual", residual, x);
    check_rows(check, "sum", sum, x);
  } else {
    check.absent("sum", sum, "without a residual");
  }
}

double elements(const Tensor& tensor) {
  return static_cast<double>(tensor.count());
}
double gradient_bytes(const Tensor& gradient, Accumulate accumulate) {
  return bytes({gradient}) * (accumulate == Accumulate::yes ? 2 : 1);
}

}  // namespace

void RmsNormForward::check() const {
  const Checks check(kName);
  check_input(check, "x", x);
  check_rows(check, "y", y.data, x);
  check_per_row(check, "rstd", rstd, x);
  check_gain(check, "weight", weight, x);
  check_sum(check, sum, residual, x);
}
Cost RmsNormForward::cost() const {
  return {.flops = 5 * elements(x), .bytes = bytes({x, residual, sum, y.data, rstd, weight})};
}
Access RmsNormForward::access() const {
  return {.reads = present({x, residual, weight}), .writes = present({y, rstd, sum})};
}

void RmsNormBackward::check() const {
  const Checks check(kName);
  check_input(check, "s", s);
  check_rows(check, "dy", dy, s);
  check_rows(check, "dx", dx, s);
  if (dsum) check_rows(check, "dsum", dsum, s);
  check_per_row(check, "rstd", rstd, s);
  check_gain(check, "weight", weight, s);
  check_gain_gradient(check, "dweight", dweight, s);
}
Cost RmsNormBackward::cost() const {
  return {.flops = 10 * elements(s),
          .bytes = bytes({dy, dsum, s, dx, rstd, weight}) + gradient_bytes(dweight, accumulate_dweight)};
}
Access RmsNormBackward::access() const {
  return {.reads = present({dy, dsum, s, rstd, weight, added_to(dweight, accumulate_dweight)}),
          .writes = present({dx, dweight})};
}

void LayerNormForward::check() const {
  const Checks check(kName);
  check_input(check, "x", x);
  check_rows(check, "y", y.data, x);
  check_per_row(check, "mean", mean, x);
  check_per_row(check, "rstd", rstd, x);
  check_gain(check, "weight", weight, x);
  check_gain(check, "bias", bias, x);
  check_sum(check, sum, residual, x);
}
Cost LayerNormForward::cost() const {
  return {.flops = 8 * elements(x), .bytes = bytes({x, residual, sum, y.data, mean, rstd, weight, bias})};
}
Access LayerNormForward::access() const {
  return {.reads = present({x, residual, weight, bias}), .writes = present({y, mean, rstd, sum})};
}

void LayerNormBackward::check() const {
  const Checks check(kName);
  check_input(check, "s", s);
  check_rows(check, "dy", dy, s);
  check_rows(check, "dx", dx, s);
  if (dsum) check_rows(check, "dsum", dsum, s);
  check_per_row(check, "mean", mean, s);
  check_per_row(check, "rstd", rstd, s);
  check_gain(check, "weight", weight, s);
  check_gain_gradient(check, "dweight", dweight, s);
  check_gain_gradient(check, "dbias", dbias, s);
  check.that(dweight.empty() == dbias.empty(), "dweight is {}, dbias is {}: both or neither",
             dweight.empty() ? "missing" : "there", dbias.empty() ? "missing" : "there");
}
Cost LayerNormBackward::cost() const {
  return {.flops = 14 * elements(s),
          .bytes = bytes({dy, dsum, s, dx, mean, rstd, weight}) +
                   gradient_bytes(dweight, accumulate_dweight) + gradient_bytes(dbias, accumulate_dbias)};
}
Access LayerNormBackward::access() const {
  return {.reads = present({dy, dsum, s, mean, rstd, weight, added_to(dweight, accumulate_dweight),
                            added_to(dbias, accumulate_dbias)}),
          .writes = present({dx, dweight, dbias})};
}

}  // namespace verne
