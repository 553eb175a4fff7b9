#include "verne/train/run_state.hpp"

#include "verne/base/hash.hpp"

namespace verne {

using Json = nlohmann::ordered_json;

namespace {

/// What the files hold, not where they lie: a run may be copied or moved together with its data. Names tell a
/// reader which file differs, places keep apart files of one name.
Json contents(std::span<const InputFingerprint> files) {
  Json result = Json::object();
  for (std::size_t i = 0; i < files.size(); ++i)
    result[fmt::format("{} {}", i + 1, std::filesystem::path(files[i].path).filename().string())] =
        files[i].sha256;
  return result;
}

}  // namespace

Json run_identity(const Deck& deck, const ModelSource& model, std::span<const InputFingerprint> weights,
                  std::span<const InputFingerprint> inputs) {
  constexpr const char* kDTypes[] = {"bf16", "fp32"};
  constexpr const char* kInits[] = {"pretrained", "random"};
  constexpr const char* kOverlong[] = {"error", "drop", "truncate"};
  constexpr const char* kSchedules[] = {"cosine", "linear", "constant"};
  const auto word = [](const auto& words, auto value) { return words[static_cast<std::size_t>(value)]; };
  Json identity;
  identity["model"] = {{"weights", contents(weights)},
                       {"config", sha256_hex(model.side_files().config).substr(0, 16)},
                       {"dtype", word(kDTypes, deck.model.dtype.value_or(ModelDType::bf16))},
                       {"init", word(kInits, deck.model.init)}};
  identity["data"] = {{"inputs", contents(inputs)},
                      {"seq_length", deck.data.seq_length},
                      {"packing", deck.data.packing},
                      {"shuffle", deck.data.shuffle},
                      {"overlong", word(kOverlong, deck.data.overlong)}};
  identity["run"] = {{"seed", deck.run.seed}};
  identity["train"] = {{"global_batch", deck.train.global_batch}};
  const OptimizerSection& o = deck.optimizer;
  identity["optimizer"] = {{"lr", o.lr},
                           {"min_lr", o.min_lr},
                           {"warmup_steps", o.warmup_steps},
                           {"schedule", word(kSchedules, o.schedule)},
                           {"beta1", o.beta1},
                           {"beta2", o.beta2},
                           {"eps", o.eps},
                           {"weight_decay", o.weight_decay},
                           {"clip_grad", o.clip_grad}};
  return identity;
}

void check_identity(const Json& stored, const Json& current, const std::filesystem::path& checkpoint) {
  std::string differences;
  const auto compare = [&](const auto& self, const Json& a, const Json& b, const std::string& key) -> void {
    if (a.is_object() && b.is_object()) {
      for (const auto& [name, value] : b.items())
        self(self, a.contains(name) ? a[name] : Json(), value, key.empty() ? name : key + "." + name);
      for (const auto& [name, value] : a.items())
        if (!b.contains(name)) self(self, value, Json(), key.empty() ? name : key + "." + name);
    } else if (a != b) {
      differences += message_text("\n  {}: {} in the checkpoint, {} now", key,
                                  a.is_null() ? "absent" : a.dump(), b.is_null() ? "absent" : b.dump());
    }
  };
  compare(compare, stored, current, "");
  require_user(differences.empty(),
               "{} belongs to another run; use another run.dir, or checkpoint.resume=never to start it over. "
               "What differs:{}",
               checkpoint.string(), OwnLines{differences});
}

Json RunProgress::json() const {
  Json state;
  state["step"] = step;
  state["consumed_samples"] = consumed_samples;
  state["consumed_tokens"] = consumed_tokens;
  state["ended"] = ended;
  Json ranking = Json::array();
  for (const Ranked& ranked : best) ranking.push_back({{"step", ranked.step}, {"value", ranked.value}});
  state["best"] = ranking;
  if (best_value) state["best_value"] = *best_value;
  state["validations_without_improvement"] = validations_without_improvement;
  return state;
}

RunProgress RunProgress::from_json(const Json& state, const std::filesystem::path& origin) {
  RunProgress progress;
  try {
    progress.step = state.at("step");
    progress.consumed_samples = state.at("consumed_samples");
    progress.consumed_tokens = state.at("consumed_tokens");
    progress.ended = state.at("ended");
    for (const Json& ranked : state.at("best"))
      progress.best.push_back({ranked.at("step"), ranked.at("value")});
    if (state.contains("best_value")) progress.best_value = state["best_value"].get<double>();
    progress.validations_without_improvement = state.at("validations_without_improvement");
  } catch (const Json::exception& error) {
    throw_user_error("{}: not a training run's checkpoint: {}", origin.string(), error.what());
  }
  return progress;
}

bool Monitor::improves(double value, double than, double min_delta) const {
  return better == Better::smaller ? value < than - min_delta : value > than + min_delta;
}

Monitor parse_monitor(const std::string& text) {
  if (text == "val_loss:min") return {Monitor::Better::smaller};
  if (text == "val_loss:max") return {Monitor::Better::larger};
  throw_user_error("checkpoint.monitor = {}: expected val_loss:min or val_loss:max", text);
}

}  // namespace verne
