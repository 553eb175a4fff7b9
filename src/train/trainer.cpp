#include "verne/train/trainer.hpp"

#include <chrono>
#include <cmath>

#include "verne/comm/agree.hpp"
#include "verne/train/hardware.hpp"

namespace verne {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Trainer::Trainer(const Run& run, Engine& engine)
    : run_(run),
      engine_(engine),
      checkpoints_(run, engine),
      learning_rate_{.schedule = run.deck.optimizer.schedule,
                     .peak = run.deck.optimizer.lr,
                     .least = run.deck.optimizer.min_lr,
                     .warmup_steps = run.deck.optimizer.warmup_steps,
                     .steps = run.last_step},
      monitor_(parse_monitor(run.deck.checkpoint.monitor)),
      stop_request_(run.deck.run.time_limit_s) {}

ExitCode Trainer::run() {
  resume_or_start();
  open_monitors();
  if (progress_.step == 0 && run_.deck.train.val_at_start) {
    const std::optional<double> val_loss = validate();
    if (val_loss && metrics_) metrics_->write({.step = 0, .val_loss = val_loss});
    if (val_loss && events_) events_->scalar(0, "val_loss", *val_loss);
    if (val_loss && run_.first_rank()) log_info("step 0: validation loss {:.4f}", *val_loss);
  }
  while (progress_.step < run_.last_step && !early_stop()) {
    const Standing standing = step(progress_.step + 1);
    checkpoints_.settle(RunCheckpoints::Wait::no);
    const auto reason = stop_reason(progress_.step);
    progress_.ended = progress_.step == run_.last_step || early_stop();
    const std::int64_t interval = run_.deck.checkpoint.interval;
    const auto sync_metrics = [this] {
      if (metrics_) metrics_->sync();
    };
    if (progress_.ended || reason || (interval > 0 && progress_.step % interval == 0)) {
      checkpoints_.save(progress_, sync_metrics);
    } else if (standing == Standing::among_best) {
      checkpoints_.save_weights(progress_, sync_metrics);
    }
    if (reason && !progress_.ended) {
      checkpoints_.settle(RunCheckpoints::Wait::yes);
      if (run_.first_rank())
        log_info("stopped after step {} ({}); start again to go on", progress_.step, *reason);
      return ExitCode::requeue;
    }
  }
  checkpoints_.settle(RunCheckpoints::Wait::yes);
  if (run_.first_rank() && early_stop())
    log_info("stopped early: {} validations without an improvement",
             progress_.validations_without_improvement);
  return ExitCode::done;
}

void Trainer::resume_or_start() {
  if (const auto checkpoint = RunCheckpoints::find(run_)) {
    progress_ = checkpoints_.restore(*checkpoint);
    if (run_.first_rank()) log_info("resumed from {} after step {}", checkpoint->string(), progress_.step);
    return;
  }
  if (run_.model.random()) {
    engine_.initialize_random(static_cast<std::uint64_t>(run_.deck.run.seed));
  } else {
    load_weights(run_.model, run_.world, engine_);
  }
}

void Trainer::open_monitors() {
  agree_after(run_.world, [&] {
    if (!run_.first_rank()) return;
    metrics_.emplace(run_.paths.metrics(), progress_.step == 0 ? -1 : progress_.step);
    events_.emplace(run_.paths.directory(), progress_.step == 0 ? 0 : progress_.step + 1);
  });
  display_.emplace(progress_.step + 1, run_.last_step);
}

Trainer::Standing Trainer::step(std::int64_t step) {
  const auto start = Clock::now();
  const StepResult result =
      engine_.train_step(step_batch(*run_.data.train, step), step, learning_rate_.at(step));
  const double seconds = seconds_since(start);
  stop_if_not_finite(step, result);
  const BatchCounts counts = run_.data.train->counts(step);
  progress_.step = step;
  progress_.consumed_samples += counts.rows;
  progress_.consumed_tokens += counts.real_tokens;
  std::optional<double> val_loss;
  if (should_validate(step)) val_loss = validate();
  log_step(step, result, seconds, val_loss);
  if (!val_loss) return Standing::ordinary;
  return judge(*val_loss);
}

bool Trainer::should_validate(std::int64_t step) const {
  const std::int64_t interval = run_.deck.train.val_interval;
  return run_.data.validation && interval > 0 && (step % interval == 0 || step == run_.last_step);
}

std::optional<double> Trainer::validate() {
  if (!run_.data.validation || run_.deck.train.val_interval == 0) return std::nullopt;
  const std::int64_t all = run_.data.validation->steps_in_epoch(), wanted = run_.deck.train.val_batches;
  return engine_.evaluate(*run_.data.validation, wanted > 0 ? std::min(wanted, all) : all);
}

Trainer::Standing Trainer::judge(double value) {
  const EarlyStoppingSection& stopping = run_.deck.early_stopping;
  if (!std::isfinite(value)) {  // neither a best nor, in JSON, a value
    ++progress_.validations_without_improvement;
    return Standing::ordinary;
  }
  if (!progress_.best_value || monitor_.improves(value, *progress_.best_value, stopping.min_delta)) {
    progress_.best_value = value;
    progress_.validations_without_improvement = 0;
  } else {
    ++progress_.validations_without_improvement;
  }
  return checkpoints_.rank(progress_, value) ? Standing::among_best : Standing::ordinary;
}

bool Trainer::early_stop() const {
  const std::int64_t patience = run_.deck.early_stopping.patience;
  return patience > 0 && progress_.validations_without_improvement >= patience;
}

std::optional<std::string> Trainer::stop_reason(std::int64_t step) {
  if (stop_request_.agreed(run_.world)) return stop_request_.reason();
  if (run_.deck.train.stop_step > 0 && step == run_.deck.train.stop_step) return "train.stop_step";
  return std::nullopt;
}

void Trainer::stop_if_not_finite(std::int64_t step, const StepResult& result) {
  if (std::isfinite(result.loss) && std::isfinite(result.grad_norm)) return;
  const bool loss = !std::isfinite(result.loss);
  const std::string tensor = engine_.first_not_finite(run_.world);
  throw SystemError(
      fmt::format("step {}: the {} is {}; the first tensor with NaN or infinity is {}. Checkpoints saved "
                  "before are whole.",
                  step, loss ? "loss" : "gradient norm",
                  std::isnan(loss ? result.loss : result.grad_norm) ? "NaN" : "infinite",
                  tensor.empty() ? "none: the sum overflowed" : tensor));
}

void Trainer::log_step(std::int64_t step, const StepResult& result, double seconds,
                       std::optional<double> val_loss) {
  const std::int64_t interval = run_.deck.train.log_interval;
  const bool due = step == run_.last_step || val_loss || (interval > 0 && step % interval == 0);
  if (!due || !run_.first_rank()) return;
  const BatchCounts counts = run_.data.train->counts(step);
  MetricsRow row{.step = step,
                 .consumed_samples = progress_.consumed_samples,
                 .consumed_tokens = progress_.consumed_tokens,
                 .loss = result.loss,
                 .grad_norm = result.grad_norm,
                 .lr = learning_rate_.at(step),
                 .val_loss = val_loss,
                 .step_time_s = seconds,
                 .tokens_per_s = static_cast<double>(counts.real_tokens) / seconds};
  const double flops =
      engine_.config().training_flops_per_token(run_.deck.data.seq_length) * *row.tokens_per_s;
  row.tflops_per_gpu = flops / static_cast<double>(run_.world.size()) / 1e12;
  if (const auto peak = peak_bf16_tflops(engine_.runtime())) row.mfu = *row.tflops_per_gpu / *peak;
  row.peak_memory_gb = static_cast<double>(engine_.memory().peak_total) / 1e9;
  metrics_->write(row);
  events_->scalar(step, "loss", result.loss);
  events_->scalar(step, "grad_norm", result.grad_norm);
  events_->scalar(step, "lr", *row.lr);
  events_->scalar(step, "tokens_per_s", *row.tokens_per_s);
  if (val_loss) events_->scalar(step, "val_loss", *val_loss);
  log_info("{}", display_->line(row));
}

}  // namespace verne
