#include "verne/app/run_verb.hpp"
#include "verne/train/train.hpp"

namespace verne {

ExitCode run_train(const VerbRun& run) {
  return train({.deck = run.deck(),
                .session = run.session,
                .logging = run.logging,
                .command_line = run.command_line,
                .recipe = run.resolved.recipe,
                .used_inputs = used_inputs(run.verb, run.resolved),
                .threads = run.threads()});
}

}  // namespace verne
