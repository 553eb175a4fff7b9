#include "verne/ops/cross_entropy.hpp"

#include "checks.hpp"

namespace verne {
namespace {

void check_block(const Checks& check, const Tensor& logits, const Tensor& targets, std::int64_t first_column,
                 std::int64_t valid_columns) {
  check.rank("logits", logits, 2);
  check.real("logits", logits);
  check.contiguous("logits", logits);
  check.dense("targets", targets, {logits.size(0)});
  check.type("targets", targets, DType::i32);
  check.that(first_column >= 0 && valid_columns >= 0 && valid_columns <= logits.size(1),
             "{} valid of {} columns, the first of them {}", valid_columns, logits.size(1), first_column);
}

double valid_elements(const Tensor& logits, std::int64_t valid_columns) {
  return static_cast<double>(logits.size(0)) * static_cast<double>(valid_columns);
}
double element_bytes(const Tensor& tensor) {
  return bits(tensor.dtype()) / 8.0;
}

}  // namespace

void CrossEntropyStatistics::check() const {
  const Checks check(kName);
  check_block(check, logits, targets, first_column, valid_columns);
  check.dense("stats", stats, {logits.size(0), 3});
  check.type("stats", stats, statistics_type(logits.dtype()));
}
Cost CrossEntropyStatistics::cost() const {
  const double elements = valid_elements(logits, valid_columns);
  return {.flops = 4 * elements, .bytes = elements * element_bytes(logits) + bytes({targets, stats})};
}
Access CrossEntropyStatistics::access() const {
  return {.reads = present({logits, targets}), .writes = present({stats})};
}

void CrossEntropyCombine::check() const {
  const Checks check(kName);
  check.rank("stats", stats, 3);
  check.type("stats", stats, {DType::f32, DType::f64});
  check.dense("stats", stats, {stats.size(0), stats.size(1), 3});
  check.that(stats.size(0) > 0, "statistics of no block");
  for (const auto& [argument, tensor] :
       {std::pair{"log_probability", log_probability}, {"log_sum_exp", log_sum_exp}}) {
    check.dense(argument, tensor, {stats.size(1)});
    check.type(argument, tensor, stats.dtype());
  }
}
Cost CrossEntropyCombine::cost() const {
  return {.flops = 2 * static_cast<double>(stats.count()),
          .bytes = bytes({stats, log_probability, log_sum_exp})};
}
Access CrossEntropyCombine::access() const {
  return {.reads = present({stats}), .writes = present({log_probability, log_sum_exp})};
}

void CrossEntropyBackward::check() const {
  const Checks check(kName);
  check_block(check, logits, targets, first_column, valid_columns);
  const DType statistics = statistics_type(logits.dtype());
  check.dense("dlogits", dlogits, logits.shape());
  check.type("dlogits", dlogits, logits.dtype());
  check.dense("log_sum_exp", log_sum_exp, {logits.size(0)});
  check.type("log_sum_exp", log_sum_exp, statistics);
  check.dense("loss_mask", loss_mask, {logits.size(0)});
  check.type("loss_mask", loss_mask, DType::u8);
  check.dense("scale", scale, {1});
  check.type("scale", scale, statistics);
}
Cost CrossEntropyBackward::cost() const {
  const double elements = valid_elements(logits, valid_columns);
  return {.flops = 4 * elements,
          .bytes = elements * element_bytes(logits) + bytes({dlogits, targets, log_sum_exp, loss_mask})};
}
Access CrossEntropyBackward::access() const {
  return {.reads = present({logits, targets, log_sum_exp, loss_mask, scale}), .writes = present({dlogits})};
}

}  // namespace verne
