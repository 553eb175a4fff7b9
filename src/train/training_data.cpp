#include "verne/train/training_data.hpp"

#include <algorithm>
#include <iostream>

#include "verne/comm/agree.hpp"
#include "verne/data/prepare.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;

enum class Form { shards, jsonl };

/// Shards and JSONL are told apart by content; a list is all of one form.
Form form_of(const std::vector<std::string>& inputs, const char* key) {
  std::optional<Form> form;
  for (const std::string& input : inputs) {
    require_user(fs::exists(input), "{}: there is no file or folder {}", key, input);
    const bool prepared_folder = fs::is_directory(input) && fs::exists(fs::path(input) / "train.h5");
    const Form found =
        prepared_folder || (fs::is_regular_file(input) && is_token_shard(input)) ? Form::shards : Form::jsonl;
    require_user(!form || *form == found, "{}: {} is {}, the files before it are not; give all of one form",
                 key, input, found == Form::shards ? "a token shard" : "JSONL");
    form = found;
  }
  return form.value_or(Form::shards);
}

std::vector<fs::path> shard_paths(const std::vector<std::string>& inputs, const char* part) {
  std::vector<fs::path> paths;
  for (const std::string& input : inputs)
    paths.push_back(fs::is_directory(input) ? fs::path(input) / (std::string(part) + ".h5")
                                            : fs::path(input));
  return paths;
}

PrepareSettings prepare_settings(const Deck& deck, const ModelSource& model, const RunPaths& paths) {
  PrepareSettings settings;
  const bool own_validation = !deck.data.validation.empty();
  for (const std::string& input : deck.data.train)
    settings.inputs.push_back(
        {input, own_validation && fs::is_regular_file(input) ? std::optional(Part::train) : std::nullopt});
  for (const std::string& input : deck.data.validation) settings.inputs.push_back({input, Part::validation});
  settings.output = paths.prepared_data();
  if (!deck.prepare.tokenizer.empty()) {
    const fs::path given = deck.prepare.tokenizer;
    settings.tokenizer = fs::exists(given) ? given : resolve_model_folder(deck.prepare.tokenizer);
  } else {
    settings.loaded_tokenizer = model.tokenizer();
  }
  settings.template_name = deck.prepare.template_;
  settings.model_type = std::string(name(model.config().family));
  if (!model.config().eos_token_ids.empty() && model.config().eos_token_ids.front() >= 0)
    settings.model_eos_id = static_cast<TokenId>(model.config().eos_token_ids.front());
  settings.vocab_size = model.config().vocab_size;
  settings.special_tokens = deck.prepare.special_tokens;
  settings.train_on = deck.prepare.train_on;
  settings.split = {deck.prepare.split[0], deck.prepare.split[1], deck.prepare.split[2]};
  settings.split_key = deck.prepare.split_key;
  settings.input_key = deck.prepare.input_key;
  settings.output_key = deck.prepare.output_key;
  settings.limit = deck.prepare.limit;
  settings.seed = static_cast<std::uint64_t>(deck.run.seed);
  return settings;
}

void read_shard_facts(DataFiles& files) {
  const ShardReader shard(files.train.front());
  files.chat_template = shard.info().chat_template;
  files.tokenizer_files = shard.tokenizer_files();
  const auto json = files.tokenizer_files.find("tokenizer.json");
  if (json == files.tokenizer_files.end()) return;
  const auto config = files.tokenizer_files.find("tokenizer_config.json");
  files.tokenizer = Tokenizer::from_json(
      json->second, config == files.tokenizer_files.end() ? "" : config->second, shard.path().string());
}

/// The shards' tokenizer must be the model's, or the model's with tokens added.
void check_tokenizer(const DataFiles& files, const ModelSource& model) {
  const std::optional<Tokenizer> own = model.tokenizer();
  if (!own || !files.tokenizer || own->hash() == files.tokenizer->hash()) return;
  std::vector<std::string> added;
  for (std::int64_t id = own->vocab_size(); id < files.tokenizer->vocab_size(); ++id)
    added.emplace_back(files.tokenizer->token_of(static_cast<TokenId>(id)).value_or(""));
  require_user(!added.empty() && own->with_added_tokens(added).hash() == files.tokenizer->hash(),
               "{}: made by another tokenizer ({}) than the model's ({} in {}); run prepare again with the "
               "model's tokenizer",
               files.train.front().string(), files.tokenizer->hash(), own->hash(), model.origin());
}

}  // namespace

DataFiles open_data_files(const Deck& deck, const ModelSource& model, const RunPaths& paths,
                          const HostGroup& world) {
  DataFiles files;
  Form form = Form::shards;
  agree_after(world, [&] {
    require_user(!deck.data.train.empty(), "data.train is missing: token shards, or JSONL files to prepare");
    form = form_of(deck.data.train, "data.train");
    if (!deck.data.validation.empty())
      require_user(
          form_of(deck.data.validation, "data.validation") == form,
          "data.train and data.validation: one is token shards, the other JSONL; give both in one form");
  });
  if (form == Form::jsonl) {
    std::optional<PrepareSettings> settings;
    agree_after(world, [&] {
      settings = prepare_settings(deck, model, paths);
      const InputFiles inputs(settings->inputs, world.rank(), world.size());
      for (const InputFiles::Source& source : inputs.sources()) files.sources.push_back(source.file.path());
      if (deck.prepare.tokenizer.empty()) return;  // else it is the model's, whose files are named already
      const fs::path& given = settings->tokenizer;
      if (fs::is_regular_file(given)) files.sources.push_back(given);
      for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
        if (fs::is_regular_file(given / name)) files.sources.push_back(given / name);
    });
    const PreparedData prepared = prepare(*settings, world, std::cout, Reuse::yes);
    files.train = {prepared[Part::train].shard};
    if (prepared[Part::validation].documents > 0) files.validation = {prepared[Part::validation].shard};
  } else {
    files.train = shard_paths(deck.data.train, "train");
    files.validation = shard_paths(deck.data.validation, "validation");
    // A folder that `prepare` made brings its own validation part.
    if (files.validation.empty() && deck.data.train.size() == 1 && fs::is_directory(deck.data.train.front()))
      if (const fs::path beside = fs::path(deck.data.train.front()) / "validation.h5"; fs::exists(beside))
        files.validation = {beside};
  }
  agree_after(world, [&] {
    read_shard_facts(files);
    check_tokenizer(files, model);
    std::erase_if(files.validation, [](const fs::path& path) { return ShardReader(path).documents() == 0; });
  });
  return files;
}

TrainingData open_batches(const Deck& deck, const DataFiles& files, const DeckLayout& layout,
                          std::int64_t vocab_size) {
  DatasetOptions dataset{
      .seq_length = deck.data.seq_length, .overlong = deck.data.overlong, .vocab_size = vocab_size};
  if (files.tokenizer) dataset.tokenizer_hash = files.tokenizer->hash();
  BatchOptions options{.seq_length = deck.data.seq_length,
                       .padded_seq_length = layout.padded_seq_length,
                       .packing = deck.data.packing ? Packing::yes : Packing::no,
                       .shuffle = deck.data.shuffle ? Shuffle::yes : Shuffle::no,
                       .seed = static_cast<std::uint64_t>(deck.run.seed),
                       .micro_batch = deck.train.micro_batch,
                       .global_batch = deck.train.global_batch,
                       .data_rank = layout.parallel.grid.data(),
                       .data_ranks = layout.parallel.grid.sizes().data};
  TrainingData data;
  data.train.emplace(TokenDataset(files.train, dataset), options);
  if (!files.validation.empty()) {
    options.shuffle = Shuffle::no;
    options.end = BatchesEnd::stop;
    data.validation.emplace(TokenDataset(files.validation, dataset), options);
  }
  return data;
}

}  // namespace verne
