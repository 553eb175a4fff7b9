#include "verne/app/run_verb.hpp"
#include "verne/infer/score.hpp"

namespace verne {

ExitCode run_score(const VerbRun& run) {
  score({.deck = run.deck(), .session = run.session, .threads = run.threads()});
  write_used_inputs_beside(run, run.deck().score.output);
  return ExitCode::done;
}

}  // namespace verne
