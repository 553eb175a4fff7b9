#include "verne/data/sampler.hpp"

#include <algorithm>
#include <cmath>

#include "verne/base/error.hpp"
#include "verne/data/permutation.hpp"

namespace verne {
namespace {

constexpr std::uint32_t kSamplerSite = 0x73616D70;  // "samp"

}  // namespace

Sampler::Sampler(std::int64_t rows, std::int64_t global_batch, Shuffle shuffle, std::uint64_t seed)
    : rows_(rows), global_batch_(global_batch), shuffle_(shuffle), seed_(seed) {
  require(rows > 0 && global_batch > 0, "a sampler of {} rows in batches of {}", rows, global_batch);
}

std::int64_t Sampler::row(std::int64_t sample) const {
  require(sample >= 0, "sample {}", sample);
  const std::int64_t epoch = sample / rows_, index = sample % rows_;
  if (shuffle_ == Shuffle::no) return index;
  return Permutation(rows_, seed_, kSamplerSite, static_cast<std::uint32_t>(epoch))(index);
}

std::vector<std::int64_t> Sampler::batch(std::int64_t step) const {
  require(step >= 1, "step {}; steps count from 1", step);
  std::vector<std::int64_t> result(static_cast<std::size_t>(global_batch_));
  for (std::int64_t i = 0; i < global_batch_; ++i) {
    result[static_cast<std::size_t>(i)] = row((step - 1) * global_batch_ + i);
  }
  return result;
}

std::int64_t Sampler::steps_for(double epochs) const {
  const double samples = std::ceil(epochs * static_cast<double>(rows_));
  require(samples >= 0 && samples < 9e15, "{} epochs of {} rows", epochs, rows_);
  const auto count = static_cast<std::int64_t>(samples);
  return std::max<std::int64_t>(1, (count + global_batch_ - 1) / global_batch_);
}

}  // namespace verne
