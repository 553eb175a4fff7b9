#include <filesystem>
#include <iostream>

#include "verne/app/run_verb.hpp"
#include "verne/checkpoint/directory.hpp"
#include "verne/checkpoint/inspect.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/hf_folder.hpp"

namespace verne {
namespace {

// A checkpoint however named, a hub id that the local cache holds, or the path itself.
std::filesystem::path resolve(const std::string& text) {
  if (names_checkpoint(text)) {
    const ResolvedCheckpoint checkpoint = resolve_checkpoint(text);
    if (!checkpoint.chosen.empty()) log_info("{}: {}", text, checkpoint.chosen);
    return checkpoint.file;
  }
  std::error_code ignored;
  return std::filesystem::exists(text, ignored) ? std::filesystem::path(text) : resolve_model_folder(text);
}

}  // namespace

ExitCode run_inspect(const VerbRun& run) {
  const InspectSection& section = run.deck().inspect;
  ExitCode code = ExitCode::done;
  agree_after(run.session.world(), [&] {
    if (run.session.rank() != 0) return;
    const std::filesystem::path input = resolve(section.input);
    if (section.compare.empty() || section.verify) {
      inspect_show(input, section.verify ? InspectVerify::yes : InspectVerify::no, std::cout);
    }
    if (!section.compare.empty() &&
        inspect_compare(input, resolve(section.compare), std::cout) == Comparison::different) {
      code = ExitCode::failure;
    }
    std::cout.flush();
  });
  return code;
}

}  // namespace verne
