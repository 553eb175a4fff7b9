#include "verne/ops/optimizer.hpp"

#include <algorithm>

#include "checks.hpp"

namespace verne {
namespace {

void check_one(const Checks& check, std::string_view argument, const Tensor& tensor) {
  check.dense(argument, tensor, {1});
  check.type(argument, tensor, DType::f64);
}

void check_tiles(const Checks& check, const Tensor& tiles) {
  check.dense("tiles", tiles, {tiles.size(0), kTileFields});
  check.type("tiles", tiles, DType::i64);
}

}  // namespace

std::vector<std::int64_t> optimizer_tiles(std::span<const OptimizerSegment> segments) {
  std::vector<std::int64_t> tiles;
  for (const OptimizerSegment& segment : segments) {
    const std::int64_t flags = (segment.decays ? static_cast<std::int64_t>(TileFlag::decays) : 0) +
                               (segment.counted ? static_cast<std::int64_t>(TileFlag::counted) : 0);
    for (std::int64_t done = 0; done < segment.count; done += kTileElements)
      for (const std::int64_t field :
           {segment.flat + done, segment.owned + done, std::min(kTileElements, segment.count - done), flags})
        tiles.push_back(field);
  }
  return tiles;
}

void ClipFactor::check() const {
  const Checks check(kName);
  check.dense("scalars", scalars, {kStepScalars});
  check.type("scalars", scalars, DType::f32);
  check_one(check, "sum_of_squares", sum_of_squares);
  check_one(check, "loss", loss);
}
Cost ClipFactor::cost() const {
  return {.flops = 4, .bytes = bytes({scalars, sum_of_squares, loss})};
}
Access ClipFactor::access() const {
  return {.reads = present({scalars, sum_of_squares, loss}), .writes = present({scalars})};
}

void AdamW::check() const {
  const Checks check(kName);
  check.type("weight", weight, {DType::f32, DType::bf16});
  check.dense("weight", weight, {weight.count()});
  check.dense("grad", grad, weight.shape());
  check.type("grad", grad, DType::f32);
  check.dense("exp_avg", exp_avg, {exp_avg.count()});
  check.type("exp_avg", exp_avg, DType::f32);
  check.dense("exp_avg_sq", exp_avg_sq, exp_avg.shape());
  check.type("exp_avg_sq", exp_avg_sq, DType::f32);
  if (master || weight.dtype() != DType::f32) {
    check.dense("master", master, exp_avg.shape());
    check.type("master", master, DType::f32);
  }
  check.dense("scalars", scalars, {kStepScalars});
  check.type("scalars", scalars, DType::f32);
  check_tiles(check, tiles);
}
Cost AdamW::cost() const {
  const auto n = static_cast<double>(exp_avg.count());
  const double weights = bits(weight.dtype()) / 8.0 * n;
  return {.flops = 16 * n,
          .bytes = 2 * bytes({exp_avg, exp_avg_sq}) + 4 * n +
                   (master ? 2 * bytes({master}) + weights : 2 * weights) + bytes({tiles})};
}

// As if it touched every element of the weights and gradients: which it does is in the tiles.
Access AdamW::access() const {
  return {.reads = present({weight, master, exp_avg, exp_avg_sq, grad, scalars, tiles}),
          .writes = present({weight, master, exp_avg, exp_avg_sq})};
}

void GradientSquares::check() const {
  const Checks check(kName);
  check_one(check, "total", total);
  check.dense("grad", grad, {grad.count()});
  check.type("grad", grad, DType::f32);
  check_tiles(check, tiles);
}
Cost GradientSquares::cost() const {
  // An upper bound: of copies one alone is counted, and of a buffer with several owners a block.
  return {.flops = 2 * static_cast<double>(grad.count()), .bytes = bytes({grad, tiles})};
}
Access GradientSquares::access() const {
  return {.reads = present({total, grad, tiles}), .writes = present({total})};
}

}  // namespace verne
