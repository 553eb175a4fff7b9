#include "verne/ops/embedding.hpp"

#include "checks.hpp"

namespace verne {

void EmbeddingForward::check() const {
  const Checks check(kName);
  check.rank("weight", weight, 2);
  check.real("weight", weight);
  check.contiguous("weight", weight);
  check.rank("tokens", tokens, 1);
  check.type("tokens", tokens, DType::i32);
  check.contiguous("tokens", tokens);
  check.dense("y", y, {tokens.size(0), weight.size(1)});
  check.type("y", y, weight.dtype());
  check.that(first_row >= 0, "first_row {}", first_row);
}
Cost EmbeddingForward::cost() const {
  return {.flops = 0, .bytes = 2 * bytes({y}) + bytes({tokens})};
}
Access EmbeddingForward::access() const {
  return {.reads = present({weight, tokens}), .writes = present({y})};
}

void EmbeddingBackward::check() const {
  const Checks check(kName);
  check.rank("dy", dy, 2);
  check.real("dy", dy);
  check.contiguous("dy", dy);
  check.dense("tokens", tokens, {dy.size(0)});
  check.type("tokens", tokens, DType::i32);
  check.rank("dweight", dweight, 2);
  check.dense("dweight", dweight, {dweight.size(0), dy.size(1)});
  check.type("dweight", dweight, statistics_type(dy.dtype()));
  check.that(first_row >= 0, "first_row {}", first_row);
}
Cost EmbeddingBackward::cost() const {
  const auto elements = static_cast<double>(dy.count());
  const double touched = 2 * elements * bits(dweight.dtype()) / 8;
  return {.flops = elements,
          .bytes = bytes({dy, tokens}) + touched + (accumulate == Accumulate::no ? bytes({dweight}) : 0)};
}
Access EmbeddingBackward::access() const {
  return {.reads = present({dy, tokens, added_to(dweight, accumulate)}), .writes = present({dweight})};
}

}  // namespace verne
