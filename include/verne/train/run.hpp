#pragma once
#include <string>
#include <vector>

#include "verne/base/log.hpp"
#include "verne/comm/mpi_session.hpp"
#include "verne/host/hardware.hpp"
#include "verne/train/run_state.hpp"

namespace verne {

/// What the program gives the trainer; the same on every rank but for the rank itself.
struct TrainRequest {
  const Deck& deck;
  const MpiSession& session;
  Logging& logging;
  std::vector<std::string> command_line;
  std::string recipe;
  std::string used_inputs;  ///< the resolved deck's text
  int threads = 1;          ///< CPU threads of this rank
};

/// What every part of a run works on. Made whole before the first step.
struct Run {
  const TrainRequest& request;
  const Deck& deck;
  const HostGroup& world;
  RunPaths paths;
  ModelSource model;
  DataFiles files;
  ParallelLayout layout;
  Machine machine;
  TrainingData data;
  EngineOptions engine_options;
  HostPlan plan;
  std::int64_t last_step = 0;
  std::vector<InputFingerprint> inputs;  ///< of all input files; empty in a dry run
  nlohmann::ordered_json identity;

  bool first_rank() const { return world.rank() == 0; }
};

/// Opens model and data, checks all that can be checked, and plans. What is wrong with the deck is known
/// before a record is read, what is wrong with the data before a weight is. Collective; throws UserError.
Run open_run(const TrainRequest& request);

/// used_inputs.ini, manifest.json and the checkpoint folder. Collective.
void publish_run_files(const Run& run);

}  // namespace verne
