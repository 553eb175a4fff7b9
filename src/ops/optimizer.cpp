#include "verne/ops/optimizer.hpp"

#include "checks.hpp"

namespace verne {

void ClipFactor::check() const {
  const Checks check(kName);
  check.dense("scalars", scalars, {kStepScalars});
  check.type("scalars", scalars, DType::f32);
  check.dense("sum_of_squares", sum_of_squares, {1});
  check.type("sum_of_squares", sum_of_squares, DType::f64);
}
Cost ClipFactor::cost() const {
  return {.flops = 4, .bytes = bytes({scalars, sum_of_squares})};
}
Access ClipFactor::access() const {
  return {.reads = present({scalars, sum_of_squares}), .writes = present({scalars})};
}

void AdamW::check() const {
  const Checks check(kName);
  check.type("weight", weight, {DType::f32, DType::bf16});
  check.dense("weight", weight, weight.shape());
  for (const auto& [argument, tensor] :
       {std::pair{"master", master}, {"exp_avg", exp_avg}, {"exp_avg_sq", exp_avg_sq}, {"grad", grad}}) {
    check.dense(argument, tensor, tensor.shape());
    check.type(argument, tensor, DType::f32);
    check.that(tensor.count() == weight.count(), "{} has {} elements, weight {}", argument, tensor.count(),
               weight.count());
  }
  check.dense("scalars", scalars, {kStepScalars});
  check.type("scalars", scalars, DType::f32);
}
Cost AdamW::cost() const {
  const bool one = weight.raw() == master.raw();
  return {.flops = 16 * static_cast<double>(weight.count()),
          .bytes = 2 * bytes({master, exp_avg, exp_avg_sq}) + bytes({grad}) + (one ? 0 : bytes({weight}))};
}
Access AdamW::access() const {
  return {.reads = present({weight, master, exp_avg, exp_avg_sq, grad, scalars}),
          .writes = present({weight, master, exp_avg, exp_avg_sq})};
}

}  // namespace verne
