#pragma once
#include <cstdint>

namespace verne {

enum class Schedule { cosine, linear, constant };

/// Learning rate by step. With s = step − 1 finished updates, w warm-up steps and n steps in all:
///   s < w: lr·(s + 1)/(w + 1);  then cosine: min + (lr − min)·½(1 + cos(π·(s − w)/(n − w))), linear: lr −
///   (lr − min)·(s − w)/(n − w), constant: lr;  from n on the final value.
/// (The form of NeMo's CosineAnnealing.)
struct LearningRate {
  Schedule schedule = Schedule::cosine;
  double peak = 0, least = 0;
  std::int64_t warmup_steps = 0;
  std::int64_t steps = 0;

  /// `step` counts from 1.
  double at(std::int64_t step) const;
};

}  // namespace verne
