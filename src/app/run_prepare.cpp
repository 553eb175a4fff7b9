#include <unistd.h>

#include <iostream>

#include "verne/app/run_verb.hpp"
#include "verne/comm/agree.hpp"
#include "verne/data/prepare.hpp"
#include "verne/io/file.hpp"

namespace verne {

ExitCode run_prepare(const VerbRun& run) {
  const PrepareSection& section = run.deck().prepare;
  PrepareSettings settings;
  for (const std::string& input : section.input) settings.inputs.push_back({input, std::nullopt});
  settings.output = section.output;
  if (!section.tokenizer.empty()) settings.tokenizer = resolve_tokenizer(section.tokenizer);
  settings.template_name = section.template_;
  settings.special_tokens = section.special_tokens;
  settings.train_on = section.train_on;
  settings.split = {section.split[0], section.split[1], section.split[2]};
  settings.split_key = section.split_key;
  settings.input_key = section.input_key;
  settings.output_key = section.output_key;
  settings.limit = section.limit;
  settings.seed = static_cast<std::uint64_t>(run.deck().run.seed);
  settings.show = section.show;
  // mpirun gives its ranks a terminal as standard output wherever the text goes, but never as standard input.
  const bool terminal = ::isatty(STDIN_FILENO) != 0 && ::isatty(STDOUT_FILENO) != 0;
  settings.marking = terminal ? Marking::colour : Marking::brackets;
  prepare(settings, run.session.world(), std::cout);
  std::cout.flush();
  agree_after(run.session.world(), [&] {
    if (run.session.rank() != 0) return;
    write_file_atomically(settings.output / "used_inputs.ini", used_inputs(run.verb, run.resolved));
  });
  return ExitCode::done;
}

}  // namespace verne
