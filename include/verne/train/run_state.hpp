#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "verne/checkpoint/checkpoint.hpp"
#include "verne/checkpoint/directory.hpp"
#include "verne/host/options.hpp"
#include "verne/train/engine.hpp"
#include "verne/train/manifest.hpp"
#include "verne/train/training_data.hpp"

namespace verne {

/// What must agree for a directory to hold the same run: model, data, seed, batch and optimizer keys. Layout,
/// step limits and intervals are not in it. `weights` are the files of weights, `inputs` the token shards:
/// their content counts, not their place.
nlohmann::ordered_json run_identity(const Deck& deck, const ModelSource& model,
                                    std::span<const InputFingerprint> weights,
                                    std::span<const InputFingerprint> inputs);
/// Throws UserError that shows what differs.
void check_identity(const nlohmann::ordered_json& stored, const nlohmann::ordered_json& current,
                    const std::filesystem::path& checkpoint);

/// Where a run stands; a checkpoint's /state.
struct RunProgress {
  std::int64_t step = 0;  ///< finished updates
  std::int64_t consumed_samples = 0, consumed_tokens = 0;
  struct Ranked {
    std::int64_t step = 0;
    double value = 0;
  };
  std::vector<Ranked> best;          ///< weights-only checkpoints, best first
  std::optional<double> best_value;  ///< of the monitor, for early stopping
  std::int64_t validations_without_improvement = 0;
  bool ended = false;  ///< the run reached its end

  nlohmann::ordered_json json() const;
  static RunProgress from_json(const nlohmann::ordered_json& state, const std::filesystem::path& origin);
};

/// What makes a validation loss the best one.
struct Monitor {
  enum class Better { smaller, larger } better = Better::smaller;
  bool improves(double value, double than, double min_delta) const;
};
/// Of checkpoint.monitor, "val_loss:min" or "val_loss:max"; UserError for any other text.
Monitor parse_monitor(const std::string& text);

}  // namespace verne
