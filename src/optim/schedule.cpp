#include "verne/optim/schedule.hpp"

#include <algorithm>
#include <cmath>

namespace verne {

double LearningRate::at(std::int64_t step) const {
  const std::int64_t done = step - 1;
  if (done < warmup_steps)
    return peak * static_cast<double>(done + 1) / static_cast<double>(warmup_steps + 1);
  const auto span = static_cast<double>(std::max<std::int64_t>(1, steps - warmup_steps));
  const double progress = std::clamp(static_cast<double>(done - warmup_steps) / span, 0.0, 1.0);
  switch (schedule) {
    case Schedule::cosine:
      return least + (peak - least) * 0.5 * (1 + std::cos(M_PI * progress));
    case Schedule::linear:
      return peak - (peak - least) * progress;
    case Schedule::constant:
      return peak;
  }
  return peak;
}

}  // namespace verne
