#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "verne/app/deck.hpp"
#include "verne/app/verb.hpp"
#include "verne/base/error.hpp"
#include "verne/base/log.hpp"
#include "verne/comm/mpi_session.hpp"

namespace verne {

/// What a verb runs with; the same on every rank but for the rank itself.
struct VerbRun {
  Verb verb = Verb::train;
  const ResolvedDeck& resolved;
  const MpiSession& session;
  Logging& logging;
  std::vector<std::string> command_line;  ///< with the program's name

  const Deck& deck() const { return resolved.deck; }
  /// CPU threads of this rank: run.threads, else its share of the node.
  int threads() const;
};

/// Runs the verb. Collective; throws what run_guarded knows how to report.
ExitCode run_verb(const VerbRun& run);

// One a verb.
ExitCode run_prepare(const VerbRun& run);
ExitCode run_tokenize(const VerbRun& run);
ExitCode run_import(const VerbRun& run);
ExitCode run_export(const VerbRun& run);
ExitCode run_train(const VerbRun& run);
ExitCode run_score(const VerbRun& run);
ExitCode run_inspect(const VerbRun& run);

/// Rank 0 writes used_inputs.ini beside an output file, unless that is a device or a pipe. Collective.
void write_used_inputs_beside(const VerbRun& run, const std::filesystem::path& output);

/// A tokenizer that a user names: a folder, a tokenizer.json, or a hub id that the local cache holds.
std::filesystem::path resolve_tokenizer(const std::string& text);

}  // namespace verne
