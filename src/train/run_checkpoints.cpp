#include "verne/train/run_checkpoints.hpp"

#include <algorithm>

#include "verne/checkpoint/convert.hpp"
#include "verne/comm/agree.hpp"
#include "verne/host/matmul_tuning.hpp"
#include "verne/train/engine_state.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;

/// One rank looks, all know: the ranks must not disagree about a file that is being replaced.
std::string shared_path(const HostGroup& world, const std::function<std::string()>& look) {
  std::string path;
  agree_after(world, [&] {
    if (world.rank() == 0) path = look();
  });
  return world.broadcast_text(path, 0);
}

}  // namespace

RunCheckpoints::RunCheckpoints(const Run& run, Engine& engine)
    : run_(run), engine_(engine), directory_(run.paths.checkpoints()), saver_(run.world) {}

std::optional<fs::path> RunCheckpoints::find(const Run& run) {
  CheckpointDirectory directory(run.paths.checkpoints());
  const std::string& resume = run.deck.checkpoint.resume;
  const std::string path = shared_path(run.world, [&]() -> std::string {
    if (resume == "auto") {
      const auto newest = directory.newest_resumable();
      return newest ? newest->file.string() : "";
    }
    if (resume != "never") return resolve_checkpoint(resume).file.string();
    fs::remove(directory.path() / "last");
    fs::remove(directory.path() / "best");
    for (const auto& entry : directory.whole()) {
      log_warning("checkpoint.resume = never: {} is removed", entry.file.string());
      fs::remove(entry.file);
    }
    return "";
  });
  if (path.empty()) return std::nullopt;
  const CheckpointReader reader(path, run.world);
  agree_after(run.world, [&] {
    require_user(reader.has_optimizer(),
                 "{}: holds weights alone; a run resumes from a checkpoint with optimizer state", path);
    const auto& state = reader.state().values;
    require_user(state.contains("identity"), "{}: not a training run's checkpoint", path);
    check_identity(state["identity"], run.identity, path);
  });
  return path;
}

RunProgress RunCheckpoints::restore(const fs::path& file) {
  const CheckpointReader reader(file, run_.world);
  RunProgress progress;
  agree_after(run_.world, [&] {
    progress = RunProgress::from_json(reader.state().values, file);
    if (reader.state().values.contains("matmul_choices"))
      take_choices(engine_.runtime(), reader.state().values["matmul_choices"]);
  });
  restore_engine(engine_, reader, run_.world);
  resumed_from_ = progress.step;
  agree_after(run_.world, [&] {
    std::error_code elsewhere;
    const bool going_back = run_.deck.checkpoint.resume != "auto" &&
                            fs::equivalent(file, directory_.file(progress.step), elsewhere);
    if (run_.first_rank() && going_back) discard_after(progress);
  });
  return progress;
}

CheckpointContent RunCheckpoints::content(const RunProgress& progress, CheckpointKind kind) const {
  CheckpointContent content = engine_state(engine_, kind);
  content.state.values = progress.json();
  auto& values = content.state.values;
  values["identity"] = run_.identity;
  values["layout"] = run_.layout.grid.text();
  values["matmul_choices"] = choices(engine_.runtime());
  if (run_.files.tokenizer && !run_.files.chat_template.empty()) {
    const ChatTemplate chat_template = resolve_template(run_.files.chat_template, "");
    if (chat_template != ChatTemplate::unresolved) {
      std::optional<TokenId> eos;
      if (!run_.model.config().eos_token_ids.empty())
        eos = static_cast<TokenId>(run_.model.config().eos_token_ids.front());
      values["chat_template"] = jinja_source(chat_template, *run_.files.tokenizer, eos);
      values["end_token_id"] = end_token(chat_template, *run_.files.tokenizer, eos);
    }
  }
  content.side_files = run_.model.side_files();
  content.side_files.config = updated_config(content.side_files.config, run_.engine_options.host.dtype,
                                             run_.model.config().vocab_size);
  for (const auto& [name, text] : run_.files.tokenizer_files) content.side_files.tokenizer[name] = text;
  return content;
}

void RunCheckpoints::save(const RunProgress& progress, const std::function<void()>& before_publishing) {
  settle();
  const CheckpointContent all = content(progress, CheckpointKind::resumable);
  agree_after(run_.world, before_publishing);
  Queue& queue = engine_.runtime().compute();
  if (run_.deck.checkpoint.async) {
    saver_.start(directory_.file(progress.step), queue, all);
    saving_ = progress;
    stages_ = 0;
    return;
  }
  saver_.save(directory_.file(progress.step), queue, all);
  publish(progress, CheckpointKind::resumable);
}

void RunCheckpoints::advance() {
  if (saver_.advance(++stages_)) settle();
}

void RunCheckpoints::settle() {
  if (!saving_) return;
  saver_.finish();
  publish(*saving_, CheckpointKind::resumable);
  saving_.reset();
}

void RunCheckpoints::publish(const RunProgress& progress, CheckpointKind kind) {
  agree_after(run_.world, [&] {
    if (!run_.first_rank()) return;
    directory_.note(progress.step, kind);
    if (kind == CheckpointKind::resumable) directory_.set_last(progress.step);
    if (!progress.best.empty() && progress.best.front().step == progress.step)
      directory_.set_best(progress.step);
    std::vector<std::int64_t> ranking;
    for (const auto& ranked : progress.best) ranking.push_back(ranked.step);
    directory_.prune({.keep = static_cast<int>(run_.deck.checkpoint.keep),
                      .keep_best = static_cast<int>(run_.deck.checkpoint.keep_best),
                      .ranking = ranking,
                      .resumed_from = resumed_from_});
    if (kind == CheckpointKind::resumable) log_info("saved {}", directory_.file(progress.step).string());
  });
}

bool RunCheckpoints::rank(RunProgress& progress, double value) const {
  const auto keep = static_cast<std::size_t>(run_.deck.checkpoint.keep_best);
  const Monitor monitor = parse_monitor(run_.deck.checkpoint.monitor);
  const auto place = std::find_if(progress.best.begin(), progress.best.end(), [&](const auto& ranked) {
    return monitor.improves(value, ranked.value, 0);
  });
  if (static_cast<std::size_t>(place - progress.best.begin()) >= keep) return false;
  progress.best.insert(place, {.step = progress.step, .value = value});
  if (progress.best.size() > keep) progress.best.resize(keep);
  return true;
}

void RunCheckpoints::save_weights(const RunProgress& progress,
                                  const std::function<void()>& before_publishing) {
  settle();
  agree_after(run_.world, before_publishing);
  saver_.save(directory_.file(progress.step), engine_.runtime().compute(),
              content(progress, CheckpointKind::weights_only));
  publish(progress, CheckpointKind::weights_only);
}

void RunCheckpoints::discard_after(const RunProgress& progress) {
  // The links first: they never point at what is gone.
  directory_.set_last(progress.step);
  const auto best = std::find_if(progress.best.begin(), progress.best.end(), [&](const auto& ranked) {
    return fs::exists(directory_.file(ranked.step));
  });
  if (best != progress.best.end())
    directory_.set_best(best->step);
  else
    fs::remove(directory_.path() / "best");
  for (const auto& entry : directory_.whole()) {
    if (entry.step <= progress.step) continue;
    log_warning("checkpoint.resume goes back to step {}: {} is removed", progress.step, entry.file.string());
    fs::remove(entry.file);
  }
}

}  // namespace verne
