#include "verne/ops/reduce.hpp"

#include "checks.hpp"

namespace verne {
namespace {

void check_total(const Checks& check, const Tensor& total) {
  check.dense("total", total, {1});
  check.type("total", total, DType::f64);
}

}  // namespace

void MaskedSum::check() const {
  const Checks check(kName);
  check_total(check, total);
  check.rank("values", values, 1);
  check.type("values", values, {DType::f32, DType::f64});
  check.contiguous("values", values);
  check.dense("mask", mask, values.shape());
  check.type("mask", mask, DType::u8);
}
Cost MaskedSum::cost() const {
  return {.flops = 2 * static_cast<double>(values.count()), .bytes = bytes({values, mask})};
}
Access MaskedSum::access() const {
  return {.reads = present({total, values, mask}), .writes = present({total})};
}

void SumOfSquares::check() const {
  const Checks check(kName);
  check_total(check, total);
  check.type("values", values, {DType::f32, DType::f64});
  check.dense("values", values, values.shape());
}
Cost SumOfSquares::cost() const {
  return {.flops = 2 * static_cast<double>(values.count()), .bytes = bytes({values})};
}
Access SumOfSquares::access() const {
  return {.reads = present({total, values}), .writes = present({total})};
}

}  // namespace verne
