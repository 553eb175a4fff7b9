#include "verne/train/run.hpp"

#include <algorithm>

#include "verne/checkpoint/directory.hpp"
#include "verne/comm/agree.hpp"
#include "verne/nn/model_tensors.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;

DType engine_dtype(const ModelSection& section) {
  return section.dtype == ModelDType::fp32 ? DType::f32 : DType::bf16;
}

EngineOptions engine_options(const Deck& deck, const TrainingData& data) {
  const OptimizerSection& o = deck.optimizer;
  EngineOptions options{
      .host = {.dtype = engine_dtype(deck.model),
               .recompute = deck.train.recompute,
               .batch = data.train->shape(),
               .micro_batches = data.train->accumulation_steps(),
               .trains = {},
               .determinism = deck.run.deterministic ? Determinism::deterministic : Determinism::fast},
      .optimizer = {.beta1 = o.beta1,
                    .beta2 = o.beta2,
                    .eps = o.eps,
                    .weight_decay = o.weight_decay,
                    .clip_grad = o.clip_grad}};
  // One engine serves validation too: its micro-batches may hold more documents.
  if (data.validation)
    options.host.batch.document_capacity =
        std::max(options.host.batch.document_capacity, data.validation->shape().document_capacity);
  return options;
}

std::int64_t last_step(const TrainSection& section, const Batches& batches) {
  const std::int64_t by_epochs = section.epochs > 0 ? batches.steps_for(section.epochs) : 0;
  if (section.max_steps > 0 && by_epochs > 0) return std::min(section.max_steps, by_epochs);
  if (section.max_steps > 0) return section.max_steps;
  return by_epochs > 0 ? by_epochs : batches.steps_in_epoch();
}

/// SHA-256 of every input, the files dealt out to the ranks. Collective.
std::vector<InputFingerprint> fingerprints(const std::vector<fs::path>& inputs, const HostGroup& world) {
  nlohmann::json own = nlohmann::json::object();
  agree_after(world, [&] {
    for (std::size_t i = static_cast<std::size_t>(world.rank()); i < inputs.size();
         i += static_cast<std::size_t>(world.size())) {
      const InputFingerprint print = fingerprint(inputs[i]);
      own[std::to_string(i)] = {print.bytes, print.sha256};
    }
  });
  std::vector<InputFingerprint> all(inputs.size());
  for (const std::string& text : world.all_gather_text(own.dump())) {
    const nlohmann::json theirs = nlohmann::json::parse(text);
    for (const auto& [index, values] : theirs.items())
      all[std::stoul(index)] = {
          .path = inputs[std::stoul(index)].string(), .bytes = values[0], .sha256 = values[1]};
  }
  return all;
}

/// What a deck asks for, known before any record is read.
struct Setting {
  ModelSource model;
  DeckLayout layout;
};

Setting choose_setting(const TrainRequest& request) {
  const Deck& deck = request.deck;
  const HostGroup& world = request.session.world();
  ModelSource model = ModelSource::open(deck.model, world, [&](const std::string& line) {
    if (world.rank() == 0) log_info("{}", line);
  });
  std::optional<DeckLayout> layout;
  agree_after(world, [&] {
    layout = make_layout(deck, model.config(), world.rank(), world.size());
    accumulation_steps(deck.train, layout->parallel);
  });
  return {.model = std::move(model), .layout = *layout};
}

/// Fingerprints of all inputs, and the run's identity, which the weights and the tokens decide.
void identify(Run& run) {
  std::vector<fs::path> files = run.model.files();
  const std::size_t weights_end = files.size();
  files.insert(files.end(), run.files.train.begin(), run.files.train.end());
  files.insert(files.end(), run.files.validation.begin(), run.files.validation.end());
  const std::size_t shards_end =
      files.size();  // their content is the data; what they were made of is only recorded
  files.insert(files.end(), run.files.sources.begin(), run.files.sources.end());
  run.inputs = fingerprints(files, run.world);
  std::vector<InputFingerprint> weights;
  for (std::size_t i = 0; i < weights_end; ++i)
    if (const fs::path kind = files[i].extension(); kind == ".safetensors" || kind == ".h5")
      weights.push_back(run.inputs[i]);
  const std::span<const InputFingerprint> shards(run.inputs.data() + weights_end, shards_end - weights_end);
  run.identity = run_identity(run.deck, run.model, weights, shards);
}

Manifest make_manifest(const Run& run, const std::vector<std::string>& devices,
                       const std::vector<std::string>& hosts) {
  const ParallelSizes& sizes = run.layout.grid.sizes();
  const int chunks = run.layout.chunks;
  Manifest manifest{.verb = "train",
                    .command_line = run.request.command_line,
                    .recipe = run.request.recipe,
                    .layout = {{"ranks", run.world.size()},
                               {"tensor", sizes.tensor},
                               {"context", sizes.context},
                               {"data", sizes.data},
                               {"pipeline", sizes.pipeline},
                               {"virtual_pipeline", chunks}},
                    .seeds = {{"run.seed", run.deck.run.seed}},
                    .rank_hosts = hosts,
                    .devices = devices,
                    .inputs = run.inputs};
  manifest.notes["dtype"] = std::string(name(run.engine_options.host.dtype));
  manifest.notes["parameters"] = std::to_string(parameter_count(run.model.config()));
  if (!run.files.chat_template.empty()) manifest.notes["chat_template"] = run.files.chat_template;
  if (run.files.tokenizer) manifest.notes["tokenizer"] = run.files.tokenizer->hash();
  return manifest;
}

}  // namespace

Run open_run(const TrainRequest& request) {
  const Deck& deck = request.deck;
  const HostGroup& world = request.session.world();
  const RunPaths paths(deck.run.dir);
  const Machine machine = choose_machine(deck.run.device, request.session, request.threads);
  Setting setting = choose_setting(request);
  const std::string who = request.session.report_line(machine.gpu);
  if (world.rank() == 0) {
    log_info("{}\n{}, {}", OwnLines{who}, setting.layout.parallel.grid.text(), device_text(machine));
    if (machine.link == Link::staged)
      log_warning("ranks share a GPU: what they tell each other goes through host memory, slowly");
  }

  DataFiles files = open_data_files(deck, setting.model, paths, world);
  TrainingData data;
  agree_after(world, [&] {
    if (files.tokenizer) setting.model.grow_vocabulary(files.tokenizer->vocab_size());
    data = open_batches(deck, files, setting.layout, setting.model.config().vocab_size);
  });
  if (world.rank() == 0) log_info("{}", data.train->dataset().summary());

  const EngineOptions options = engine_options(deck, data);
  Run run{.request = request,
          .deck = deck,
          .world = world,
          .paths = paths,
          .model = std::move(setting.model),
          .files = std::move(files),
          .layout = setting.layout.parallel,
          .machine = machine,
          .data = std::move(data),
          .engine_options = options,
          .plan = {},
          .last_step = 0,
          .inputs = {},
          .identity = {}};
  run.last_step = last_step(deck.train, *run.data.train);
  run.plan = Engine::plan(run.model.config(), run.layout, options);
  if (!deck.run.dry_run) identify(run);
  return run;
}

void publish_run_files(const Run& run) {
  const auto devices = run.world.all_gather_text(device_text(run.machine));
  const auto hosts = run.world.all_gather_text(run.request.session.host());
  agree_after(run.world, [&] {
    if (!run.first_rank()) return;
    CheckpointDirectory(run.paths.checkpoints()).prepare();
    publish_text(run.paths.used_inputs(), run.request.used_inputs);
    publish_text(run.paths.manifest(), manifest_json(make_manifest(run, devices, hosts)));
  });
}

}  // namespace verne
