#include "verne/app/run_verb.hpp"

#include "verne/comm/agree.hpp"
#include "verne/io/file.hpp"
#include "verne/io/hf_folder.hpp"

namespace verne {
namespace fs = std::filesystem;

int VerbRun::threads() const {
  const std::int64_t given = deck().run.threads;
  return given > 0 ? static_cast<int>(given) : session.threads();
}

ExitCode run_verb(const VerbRun& run) {
  switch (run.verb) {
    case Verb::prepare:
      return run_prepare(run);
    case Verb::tokenize:
      return run_tokenize(run);
    case Verb::import:
      return run_import(run);
    case Verb::train:
      return run_train(run);
    case Verb::score:
      return run_score(run);
    case Verb::export_:
      return run_export(run);
    case Verb::inspect:
      return run_inspect(run);
  }
  throw InternalError("run_verb: a verb of no name");
}

void write_used_inputs_beside(const VerbRun& run, const fs::path& output) {
  agree_after(run.session.world(), [&] {
    std::error_code ignored;
    const bool stream = fs::exists(output, ignored) && !fs::is_regular_file(output, ignored);
    if (run.session.rank() != 0 || stream) return;
    write_file_atomically(output.parent_path() / "used_inputs.ini", used_inputs(run.verb, run.resolved));
  });
}

fs::path resolve_tokenizer(const std::string& text) {
  std::error_code ignored;
  return fs::exists(text, ignored) ? fs::path(text) : resolve_model_folder(text);
}

}  // namespace verne
