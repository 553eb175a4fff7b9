#include "verne/app/run_verb.hpp"
#include "verne/checkpoint/convert.hpp"
#include "verne/comm/agree.hpp"
#include "verne/host/model_source.hpp"
#include "verne/io/hf_folder.hpp"
#include "verne/nn/config.hpp"

namespace verne {

ExitCode run_import(const VerbRun& run) {
  const HostGroup& world = run.session.world();
  ImportOptions options;
  options.output = run.deck().import_.output;
  options.source = run.deck().import_.input;
  agree_after(world, [&] {
    options.input = resolve_model_folder(run.deck().import_.input);
    const std::optional<std::string> text = read_side_file(options.input, "config.json");
    require_user(text.has_value(), "{} has no config.json: it is not a Hugging Face model folder",
                 options.input.string());
    const ModelConfig config = parse_model_config(*text, (options.input / "config.json").string());
    options.expected = expected_tensors(config);
    options.duplicates = duplicate_tensors(config);
  });
  if (const auto dtype = run.deck().model.dtype) {
    options.dtype = *dtype == ModelDType::bf16 ? DType::bf16 : DType::f32;
  }
  import_model(options, world);
  write_used_inputs_beside(run, options.output);
  if (world.rank() == 0)
    log_info("{} holds the model of {}", options.output.string(), options.input.string());
  return ExitCode::done;
}

}  // namespace verne
