#include "verne/train/train.hpp"

#include "verne/checkpoint/convert.hpp"
#include "verne/comm/agree.hpp"
#include "verne/comm/watchdog.hpp"
#include "verne/train/dry_run.hpp"
#include "verne/train/trainer.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;

void export_result(const Run& run) {
  ExportOptions options;
  options.checkpoint = resolve_checkpoint(run.paths.directory().string(), run.world).file;
  options.output = run.paths.huggingface();
  options.extra_files["used_inputs.ini"] = run.request.used_inputs;
  const CheckpointReader reader(options.checkpoint, run.world);
  const auto& state = reader.state().values;
  if (state.contains("chat_template")) options.chat_template = state["chat_template"].get<std::string>();
  if (state.contains("end_token_id")) options.end_token_id = state["end_token_id"].get<std::int64_t>();
  export_model(options, run.world);
  if (run.first_rank())
    log_info("{} holds the fine-tuned model of {}", options.output.string(), options.checkpoint.string());
}

bool finished(const Run& run, const std::optional<fs::path>& checkpoint) {
  if (!checkpoint) return false;
  bool ended = false;
  const CheckpointReader reader(*checkpoint, run.world);
  agree_after(run.world, [&] {
    const RunProgress progress = RunProgress::from_json(reader.state().values, *checkpoint);
    ended = progress.step >= run.last_step ||
            (progress.ended && run.deck.early_stopping.patience > 0 &&
             progress.validations_without_improvement >= run.deck.early_stopping.patience);
    if (ended && run.first_rank())
      log_info("{}: the run is finished (step {})", run.paths.directory().string(), progress.step);
  });
  return ended;
}

ExitCode train_to_the_end(const Run& run) {
  Watchdog watchdog(run.request.session, static_cast<double>(run.deck.run.collective_timeout_s));
  ParallelRuntime runtime = make_runtime(run.world, run.layout, run.model.config(), run.machine,
                                         run.engine_options.host.determinism, &watchdog);
  Engine engine(run.model.config(), runtime, run.engine_options, run.plan.arenas);
  return Trainer(run, engine).run();
}

}  // namespace

ExitCode train(const TrainRequest& request) {
  const HostGroup& world = request.session.world();
  const RunPaths paths(request.deck.run.dir);
  std::optional<RunLock> lock;
  agree_after(world, [&] {
    if (world.rank() == 0) lock.emplace(paths.directory());
  });
  if (!request.deck.run.dry_run) add_run_logs(request.logging, paths, world.rank());

  const Run run = open_run(request);
  if (request.deck.run.dry_run) {
    show_dry_run(run);
    return ExitCode::done;
  }
  agree_after(world, [&] { check_memory(run.plan.memory, run.layout, run.machine); });
  const bool was_finished = finished(run, RunCheckpoints::find(run));
  if (!was_finished) {
    publish_run_files(run);
    if (const ExitCode code = train_to_the_end(run); code != ExitCode::done) return code;
  }
  // Of a finished run the export may be what was interrupted, or wanted only now.
  const bool exported = was_finished && world.min(fs::exists(paths.huggingface()) ? 1 : 0) == 1;
  if (request.deck.train.export_ == ExportAtEnd::hf && !exported) export_result(run);
  return ExitCode::done;
}

}  // namespace verne
