#include "verne/checkpoint/convert.hpp"
#include "verne/comm/agree.hpp"
#include "verne/train/dry_run.hpp"
#include "verne/train/hardware.hpp"
#include "verne/train/matmul_tuning.hpp"
#include "verne/train/trainer.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;

DType engine_dtype(const ModelSection& section) {
  return section.dtype == ModelDType::fp32 ? DType::f32 : DType::bf16;
}

EngineOptions engine_options(const Deck& deck, const Batches& batches) {
  const OptimizerSection& o = deck.optimizer;
  return {.dtype = engine_dtype(deck.model), .recompute = deck.train.recompute,
          .optimizer = {.beta1 = o.beta1, .beta2 = o.beta2, .eps = o.eps, .weight_decay = o.weight_decay, .clip_grad = o.clip_grad},
          .batch = batches.shape()};
}

std::int64_t last_step(const TrainSection& section, const Batches& batches) {
  const std::int64_t by_epochs = section.epochs > 0 ? batches.steps_for(section.epochs) : 0;
  if (section.max_steps > 0 && by_epochs > 0) return std::min(section.max_steps, by_epochs);
  if (section.max_steps > 0) return section.max_steps;
  return by_epochs > 0 ? by_epochs : batches.steps_in_epoch();
}

/// Validation batches are micro-batches of the same shape: one engine serves both.
void check_shapes(const TrainingData& data, EngineOptions& options) {
  if (!data.validation) return;
  options.batch.document_capacity = std::max(options.batch.document_capacity, data.validation->shape().document_capacity);
}

/// SHA-256 of every input, the files dealt out to the ranks. Collective.
std::vector<InputFingerprint> fingerprints(const std::vector<fs::path>& inputs, const HostGroup& world) {
  nlohmann::json own = nlohmann::json::object();
  agree_after(world, [&] {
    for (std::size_t i = static_cast<std::size_t>(world.rank()); i < inputs.size(); i += static_cast<std::size_t>(world.size())) {
      const InputFingerprint print = fingerprint(inputs[i]);
      own[std::to_string(i)] = {print.bytes, print.sha256};
    }
  });
  std::vector<InputFingerprint> all(inputs.size());
  for (const std::string& text : world.all_gather_text(own.dump())) {
    const nlohmann::json theirs = nlohmann::json::parse(text);
    for (const auto& [index, values] : theirs.items())
      all[std::stoul(index)] = {.path = inputs[std::stoul(index)].string(), .bytes = values[0], .sha256 = values[1]};
  }
  return all;
}

Manifest make_manifest(const Run& run, const std::vector<InputFingerprint>& inputs, const std::vector<std::string>& devices,
                       const std::vector<std::string>& hosts) {
  const ParallelSizes& sizes = run.layout.grid.sizes();
  Manifest manifest{.verb = "train", .command_line = run.request.command_line, .recipe = run.request.recipe,
                    .layout = {{"ranks", run.world.size()}, {"tensor", sizes.tensor}, {"data", sizes.data}},
                    .seeds = {{"run.seed", run.deck.run.seed}}, .rank_hosts = hosts, .devices = devices, .inputs = inputs};
  manifest.notes["dtype"] = std::string(name(run.engine_options.dtype));
  manifest.notes["parameters"] = std::to_string(run.model.config().parameter_count());
  if (!run.files.chat_template.empty()) manifest.notes["chat_template"] = run.files.chat_template;
  if (run.files.tokenizer) manifest.notes["tokenizer"] = run.files.tokenizer->hash();
  return manifest;
}

/// One micro-batch whose result is thrown away: matmul algorithms are measured, plans are built.
void warm_up(const Run& run, Engine& engine) {
  if (engine.runtime().compute().kind() != QueueKind::cuda) return;
  StepBatch batch = step_batch(*run.data.train, 1);
  batch.micro_batches = 1;
  engine.accumulate_gradients(batch);
  share_choices(engine.runtime(), run.world);
}

void export_result(const Run& run) {
  ExportOptions options;
  agree_after(run.world, [&] {
    const ResolvedCheckpoint chosen = resolve_checkpoint(run.paths.directory().string());
    options.checkpoint = chosen.file;
    options.output = run.paths.huggingface();
    const CheckpointReader reader(chosen.file);
    const auto& state = reader.state().values;
    if (state.contains("chat_template")) options.chat_template = state["chat_template"].get<std::string>();
    if (state.contains("end_token_id")) options.end_token_id = state["end_token_id"].get<std::int64_t>();
    options.extra_files["used_inputs.ini"] = run.request.used_inputs;
  });
  export_model(options, run.world);
  if (run.first_rank()) log_info("{} holds the fine-tuned model of {}", options.output.string(), options.checkpoint.string());
}

bool finished(const Run& run, const std::optional<fs::path>& checkpoint) {
  if (!checkpoint) return false;
  bool ended = false;
  agree_after(run.world, [&] {
    const RunProgress progress = RunProgress::from_json(CheckpointReader(*checkpoint).state().values, *checkpoint);
    ended = progress.step >= run.last_step ||
            (progress.ended && run.deck.early_stopping.patience > 0 &&
             progress.validations_without_improvement >= run.deck.early_stopping.patience);
    if (ended && run.first_rank()) log_info("{}: the run is finished (step {})", run.paths.directory().string(), progress.step);
  });
  return ended;
}

}  // namespace

ExitCode train(const TrainRequest& request) {
  const Deck& deck = request.deck;
  const HostGroup& world = request.session.world();
  const RunPaths paths(deck.run.dir);
  const int gpu = request.session.rank_in_node();

  // What can be wrong with the deck is known before a weight or a record is read.
  std::optional<ModelSource> model;
  std::optional<TrainLayout> layout;
  DeviceKind device = DeviceKind::cpu;
  agree_after(world, [&] {
    parse_monitor(deck.checkpoint.monitor);
    device = choose_device(deck.run.device);
    model = ModelSource::open(deck.model, [&](const std::string& line) { if (world.rank() == 0) log_info("{}", line); });
    layout = make_layout(deck, model->config(), world.rank(), world.size());
  });
  if (device == DeviceKind::cuda)
    agree_after(world, [&] {
      require_user(gpu < visible_gpus(), "{} ranks on this node, {} GPUs: start one rank a GPU", request.session.node().size(), visible_gpus());
    });

  std::optional<RunLock> lock;
  agree_after(world, [&] { if (world.rank() == 0) lock.emplace(paths.directory()); });
  const std::string who = request.session.report_line(device == DeviceKind::cuda ? 1 : 0);
  if (!deck.run.dry_run) add_run_logs(request.logging, paths, world.rank());
  if (world.rank() == 0) log_info("{}\n{}, {}", who, layout->grid.text(), device_text(device, gpu, request.threads));

  DataFiles files = open_data_files(deck, *model, paths, world);
  std::optional<TrainingData> data;
  agree_after(world, [&] {
    if (files.tokenizer) model->grow_vocabulary(files.tokenizer->vocab_size());
    data = open_batches(deck, files, *layout, model->config().vocab_size);
  });
  if (world.rank() == 0) log_info("{}", data->train->dataset().summary());

  std::vector<fs::path> inputs = model->files();
  for (const fs::path& file : files.train) inputs.push_back(file);
  for (const fs::path& file : files.validation) inputs.push_back(file);
  const std::size_t shards_end = inputs.size();  // their content is the data; what they were made of is only recorded
  inputs.insert(inputs.end(), files.sources.begin(), files.sources.end());
  const std::vector<InputFingerprint> prints = deck.run.dry_run ? std::vector<InputFingerprint>{} : fingerprints(inputs, world);
  std::vector<InputFingerprint> weight_prints, data_prints;
  for (std::size_t i = 0; i < std::min(prints.size(), shards_end); ++i) {
    if (i >= model->files().size()) data_prints.push_back(prints[i]);
    else if (const fs::path kind = inputs[i].extension(); kind == ".safetensors" || kind == ".h5") weight_prints.push_back(prints[i]);
  }

  EngineOptions options = engine_options(deck, *data->train);
  check_shapes(*data, options);
  Run run{.request = request, .deck = deck, .world = world, .paths = paths, .model = std::move(*model), .files = std::move(files),
          .layout = *layout, .data = std::move(*data), .engine_options = options, .plan = {}, .last_step = 0, .identity = {}};
  run.last_step = last_step(deck.train, *run.data.train);
  run.identity = run_identity(deck, run.model, weight_prints, data_prints);
  run.plan = Engine::plan(run.model.config(), run.layout.grid, run.layout.sequence, options);
  if (deck.run.dry_run) {
    show_dry_run(run, device);
    return ExitCode::done;
  }
  agree_after(world, [&] { check_memory(run.plan, device, gpu); });

  if (finished(run, RunCheckpoints::find(run))) {
    // The export may be what was interrupted, or wanted only now.
    if (deck.train.export_ == ExportAtEnd::hf && world.min(fs::exists(paths.huggingface()) ? 1 : 0) == 0) export_result(run);
    return ExitCode::done;
  }
  const auto devices = world.all_gather_text(device_text(device, gpu, request.threads));
  const auto hosts = world.all_gather_text(request.session.host());
  agree_after(world, [&] {
    if (!run.first_rank()) return;
    CheckpointDirectory(paths.checkpoints()).prepare();
    publish_text(paths.used_inputs(), request.used_inputs);
    publish_text(paths.manifest(), manifest_json(make_manifest(run, prints, devices, hosts)));
  });

  Watchdog watchdog(request.session, static_cast<double>(deck.run.collective_timeout_s));
  ParallelRuntime runtime =
      make_runtime(world, run.layout.grid, run.model.config(), run.layout.sequence, device, gpu, request.threads,
                   deck.run.deterministic ? ParallelRuntime::Bits::reproducible : ParallelRuntime::Bits::fast, &watchdog);
  Engine engine(run.model.config(), runtime, options, run.plan.arenas);
  warm_up(run, engine);
  Trainer trainer(run, engine);
  const ExitCode code = trainer.run();
  if (code == ExitCode::done && deck.train.export_ == ExportAtEnd::hf) export_result(run);
  return code;
}

}  // namespace verne
