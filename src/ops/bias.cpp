#include "verne/ops/bias.hpp"

#include "checks.hpp"

namespace verne {

void AddBias::check() const {
  const Checks check(kName);
  check.rank("y", y, 2);
  check.real("y", y);
  check.dense("bias", bias, {y.size(1)});
  if (!(y.dtype() == DType::f32 && bias.dtype() == DType::bf16)) check.type("bias", bias, y.dtype());
}
Cost AddBias::cost() const {
  return {.flops = static_cast<double>(y.count()), .bytes = 2 * bytes({y}) + bytes({bias})};
}
Access AddBias::access() const {
  return {.reads = present({y, bias}), .writes = present({y})};
}

void BiasBackward::check() const {
  const Checks check(kName);
  check.rank("dy", dy, 2);
  check.real("dy", dy);
  check.dense("dbias", dbias, {dy.size(1)});
  check.type("dbias", dbias, statistics_type(dy.dtype()));
}
Cost BiasBackward::cost() const {
  return {.flops = static_cast<double>(dy.count()),
          .bytes = bytes({dy}) + bytes({dbias}) * (accumulate == Accumulate::yes ? 2 : 1)};
}
Access BiasBackward::access() const {
  return {.reads = present({dy, added_to(dbias, accumulate)}), .writes = present({dbias})};
}

}  // namespace verne
