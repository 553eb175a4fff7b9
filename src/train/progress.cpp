#include "verne/train/progress.hpp"

#include <fmt/format.h>

#include <cmath>

namespace verne {

std::string format_duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::llround(std::max(0.0, seconds)));
  const std::int64_t days = whole / 86400, hours = whole / 3600 % 24, minutes = whole / 60 % 60,
                     rest = whole % 60;
  if (days > 0) return fmt::format("{} d {:02d}:{:02d}:{:02d}", days, hours, minutes, rest);
  return fmt::format("{}:{:02d}:{:02d}", hours, minutes, rest);
}

Progress::Progress(std::int64_t first_step, std::int64_t last_step, Clock::time_point start)
    : first_step_(first_step), last_step_(last_step), start_(start) {}

std::string Progress::line(const MetricsRow& row, Clock::time_point now) {
  std::string text = fmt::format("step {}/{}", row.step, last_step_);
  if (row.loss) text += fmt::format("  loss {:.4f}", *row.loss);
  if (row.val_loss) text += fmt::format("  val_loss {:.4f}", *row.val_loss);
  if (row.grad_norm) text += fmt::format("  grad_norm {:.3g}", *row.grad_norm);
  if (row.lr) text += fmt::format("  lr {:.3g}", *row.lr);
  if (row.tokens_per_s) text += fmt::format("  {:.0f} tokens/s", *row.tokens_per_s);
  if (row.step < first_step_) return text;  // the validation before the first step
  const bool warmed_up = warm_.has_value() && row.step > warm_step_;
  const double elapsed_s = std::chrono::duration<double>(now - (warmed_up ? *warm_ : start_)).count();
  const std::int64_t steps = warmed_up ? row.step - warm_step_ : row.step - first_step_ + 1;
  const double left_s = elapsed_s / static_cast<double>(steps) * static_cast<double>(last_step_ - row.step);
  if (!warm_) {
    warm_ = now;
    warm_step_ = row.step;
  }
  return text + fmt::format("  {} left", format_duration(left_s));
}

}  // namespace verne
