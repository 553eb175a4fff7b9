#pragma once
#include <cstdint>
#include <vector>

namespace verne {

enum class Shuffle { no, yes };

/// Which rows each step trains on: a pure function of (seed, step), the same for every layout. Sample i (from
/// 0) of the run belongs to epoch i / rows; an epoch takes every row once, in an order drawn from (seed,
/// epoch), or in row order without shuffling. Step s (from 1) takes samples [(s−1)·global_batch,
/// s·global_batch), so a batch may end one epoch and begin the next.
class Sampler {
 public:
  Sampler(std::int64_t rows, std::int64_t global_batch, Shuffle shuffle, std::uint64_t seed);

  std::int64_t rows() const { return rows_; }
  std::int64_t global_batch() const { return global_batch_; }

  std::int64_t row(std::int64_t sample) const;
  /// The step's rows, in order.
  std::vector<std::int64_t> batch(std::int64_t step) const;
  /// Steps until `epochs` (any fraction above 0) are through, at least 1; the last one may reach into the
  /// next epoch.
  std::int64_t steps_for(double epochs) const;

 private:
  std::int64_t rows_, global_batch_;
  Shuffle shuffle_;
  std::uint64_t seed_;
};

}  // namespace verne
