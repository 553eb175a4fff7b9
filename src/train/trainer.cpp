#include "verne/train/trainer.hpp"

#include <cmath>

#include "verne/comm/agree.hpp"
#include "verne/host/load_weights.hpp"
#include "verne/host/matmul_tuning.hpp"

namespace verne {

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
      flops_(run.model.config()),
      peak_tflops_(peak_bf16_tflops(engine.runtime())),
      stop_request_(run.deck.run.time_limit_s) {}

ExitCode Trainer::run() {
  resume_or_start();
  agree_after(run_.world, [&] {
    if (run_.first_rank())
      monitors_.emplace(run_.paths.metrics(), run_.paths.directory(),
                        progress_.step == 0 ? -1 : progress_.step, run_.last_step);
  });
  warm_up();
  validate_at_start();
  for (std::int64_t step = progress_.step + 1; step <= run_.last_step && !early_stop(); ++step) {
    enqueue(step);
    const std::int64_t ahead = settles(step) ? 0 : 1;
    while (engine_.unread_steps() > ahead) account();
    if (stop_reason_)
      while (engine_.unread_steps() > 0) account();
    if (engine_.unread_steps() > 0) continue;
    if (const auto reason = settle()) {
      checkpoints_.settle();
      if (run_.first_rank())
        log_info("stopped after step {} ({}); start again{} to go on", progress_.step, *reason,
                 run_.deck.checkpoint.resume == "auto" ? "" : " with checkpoint.resume=auto");
      return ExitCode::requeue;
    }
  }
  checkpoints_.settle();
  if (run_.first_rank() && early_stop())
    log_info("stopped early: {} validations without an improvement",
             progress_.validations_without_improvement);
  return ExitCode::done;
}

void Trainer::resume_or_start() {
  if (const auto checkpoint = RunCheckpoints::find(run_)) {
    progress_ = checkpoints_.restore(*checkpoint);
    if (run_.first_rank()) log_info("resumed from {} after step {}", checkpoint->string(), progress_.step);
  } else if (run_.model.random()) {
    engine_.initialize_random(static_cast<std::uint64_t>(run_.deck.run.seed));
  } else {
    load_weights(run_.model, run_.world, engine_.host());
    engine_.weights_changed();
  }
}

/// A global batch on the real weights whose result is thrown away: matmul algorithms are measured, plans are
/// built.
void Trainer::warm_up() {
  if (engine_.runtime().compute().kind() != QueueKind::cuda) return;
  engine_.accumulate_gradients(run_.data.train->batch(1));
  share_choices(engine_.runtime(), run_.world);
}

void Trainer::validate_at_start() {
  if (progress_.step > 0 || !run_.deck.train.val_at_start) return;
  const std::optional<double> val_loss = validate();
  if (!val_loss || !run_.first_rank()) return;
  monitors_->write({.step = 0, .val_loss = val_loss});
}

void Trainer::enqueue(std::int64_t step) {
  if (paused_) mark_ = Clock::now();
  paused_ = false;
  Signals signals{};
  stop_request_.add_to(signals);
  if (checkpoints_.behind()) signals[static_cast<std::size_t>(Signal::unsaved)] = 1;
  enqueued_.push_back({.counts = run_.data.train->counts(step), .saving = checkpoints_.saving()});
  engine_.train_step(run_.data.train->batch(step), step, learning_rate_.at(step), signals);
  if (engine_.newest_step_ended()) enqueued_.back().ended = Clock::now();
}

void Trainer::account() {
  log(std::nullopt);  // the step before, which had nothing to wait for
  const StepResult result = engine_.read_step();
  const Clock::time_point end = enqueued_.front().ended.value_or(Clock::now());
  if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm)) {
    const bool loss = !std::isfinite(result.loss);
    const std::string tensor = engine_.first_not_finite(run_.data.train->batch(result.step), run_.world);
    checkpoints_.settle();  // what is being saved is of before
    throw SystemError(
        fmt::format("step {}: the {} is {}; the first tensor with NaN or infinity is {}. Checkpoints saved "
                    "before are whole.",
                    result.step, loss ? "loss" : "gradient norm",
                    std::isnan(loss ? result.loss : result.grad_norm) ? "NaN" : "infinite",
                    tensor.empty() ? "none: the sum overflowed" : tensor));
  }
  newest_ = {.result = result,
             .counts = std::move(enqueued_.front().counts),
             .seconds = std::chrono::duration<double>(end - mark_).count()};
  const std::optional<RunCheckpoints::Saving> saving = enqueued_.front().saving;
  enqueued_.pop_front();
  mark_ = end;
  progress_.step = result.step;
  progress_.consumed_samples += newest_->counts.rows;
  progress_.consumed_tokens += newest_->counts.real_tokens;
  if (!stop_reason_) stop_reason_ = StopRequest::reason(result.signals);
  // The signal is of the stage that was under way when the step began.
  const bool all_did = result.signals[static_cast<std::size_t>(Signal::unsaved)] == 0;
  if (saving && all_did && saving == checkpoints_.saving()) checkpoints_.advance();
}

bool Trainer::validates(std::int64_t step) const {
  const std::int64_t interval = run_.deck.train.val_interval;
  return run_.data.validation && interval > 0 && (step % interval == 0 || step == run_.last_step);
}

bool Trainer::saves(std::int64_t step) const {
  const std::int64_t interval = run_.deck.checkpoint.interval;
  return step == run_.last_step || (interval > 0 && step % interval == 0);
}

bool Trainer::settles(std::int64_t step) const {
  return validates(step) || saves(step) || step == run_.deck.train.stop_step;
}

std::optional<std::string> Trainer::settle() {
  const std::int64_t step = progress_.step;
  std::optional<double> val_loss;
  if (validates(step)) val_loss = validate();
  log(val_loss);
  const Standing standing = val_loss ? judge(*val_loss) : Standing::ordinary;
  std::optional<std::string> reason = stop_reason_;
  if (!reason && run_.deck.train.stop_step > 0 && step == run_.deck.train.stop_step)
    reason = "train.stop_step";
  progress_.ended = step == run_.last_step || early_stop();
  if (progress_.ended || reason || saves(step)) {
    checkpoints_.save(progress_, [this] { sync_monitors(); });
  } else if (standing == Standing::among_best) {
    checkpoints_.save_weights(progress_, [this] { sync_monitors(); });
  }
  paused_ = true;
  return progress_.ended ? std::nullopt : reason;
}

std::optional<double> Trainer::validate() {
  if (!run_.data.validation || run_.deck.train.val_interval == 0) return std::nullopt;
  const std::int64_t all = run_.data.validation->steps_in_epoch(), wanted = run_.deck.train.val_batches;
  double loss = engine_.evaluate(*run_.data.validation, wanted > 0 ? std::min(wanted, all) : all);
  // What ranks decide on is one rank's value.
  run_.world.broadcast(std::as_writable_bytes(std::span(&loss, 1)), 0);
  return loss;
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

void Trainer::sync_monitors() {
  if (monitors_) monitors_->sync();
}

void Trainer::log(std::optional<double> val_loss) {
  if (!newest_) return;
  const auto [result, counts, seconds] = std::move(*newest_);
  newest_.reset();
  const std::int64_t interval = run_.deck.train.log_interval;
  const bool due = result.step == run_.last_step || val_loss || (interval > 0 && result.step % interval == 0);
  if (!due || !monitors_) return;
  MetricsRow row{.step = result.step,
                 .consumed_samples = progress_.consumed_samples,
                 .consumed_tokens = progress_.consumed_tokens,
                 .loss = result.loss,
                 .grad_norm = result.grad_norm,
                 .lr = learning_rate_.at(result.step),
                 .val_loss = val_loss,
                 .step_time_s = seconds,
                 .tokens_per_s = static_cast<double>(counts.real_tokens) / seconds};
  row.tflops_per_gpu = flops_(counts.lengths) / seconds / static_cast<double>(run_.world.size()) / 1e12;
  if (peak_tflops_) row.mfu = *row.tflops_per_gpu / *peak_tflops_;
  row.peak_memory_gb = static_cast<double>(engine_.memory().peak_total) / 1e9;
  monitors_->write(row);
}

}  // namespace verne
