#include "verne/app/run_verb.hpp"
#include "verne/checkpoint/convert.hpp"
#include "verne/checkpoint/directory.hpp"
#include "verne/checkpoint/reader.hpp"
#include "verne/comm/agree.hpp"

namespace verne {

ExitCode run_export(const VerbRun& run) {
  const HostGroup& world = run.session.world();
  ExportOptions options;
  options.output = run.deck().export_.output;
  const ResolvedCheckpoint checkpoint = resolve_checkpoint(run.deck().export_.checkpoint, world);
  options.checkpoint = checkpoint.file;
  if (world.rank() == 0 && !checkpoint.chosen.empty())
    log_info("{}: {}", run.deck().export_.checkpoint, checkpoint.chosen);
  options.extra_files["used_inputs.ini"] = used_inputs(run.verb, run.resolved);
  const CheckpointReader reader(options.checkpoint, world);
  const auto& state = reader.state().values;
  if (state.contains("chat_template")) options.chat_template = state["chat_template"].get<std::string>();
  if (state.contains("end_token_id")) options.end_token_id = state["end_token_id"].get<std::int64_t>();
  export_model(options, world);
  if (world.rank() == 0)
    log_info("{} holds the model of {}", options.output.string(), options.checkpoint.string());
  return ExitCode::done;
}

}  // namespace verne
