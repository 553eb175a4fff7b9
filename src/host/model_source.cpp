#include "verne/host/model_source.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <mutex>

#include "verne/checkpoint/convert.hpp"
#include "verne/checkpoint/directory.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/file.hpp"
#include "verne/nn/model_tensors.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;

/// A source whose vocabulary tensors have more rows than are stored.
class GrownVocabulary final : public TensorSource {
 public:
  GrownVocabulary(const TensorSource& source, std::int64_t vocab_size)
      : source_(source), tensors_(source.tensors()) {
    for (TensorInfo& tensor : tensors_)
      if (is_vocabulary(tensor.name)) tensor.shape = Shape{vocab_size, tensor.shape[1]};
  }

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  std::string origin() const override { return source_.origin(); }

  void read(const TensorInfo& tensor, std::int64_t offset, std::span<std::byte> to) const override {
    const TensorInfo& stored = *source_.find(tensor.name);
    const std::int64_t from_file = std::clamp<std::int64_t>(stored.bytes() - offset, 0, std::ssize(to));
    if (from_file > 0) source_.read(stored, offset, to.first(static_cast<std::size_t>(from_file)));
    fill(stored, offset + from_file, to.subspan(static_cast<std::size_t>(from_file)));
  }

  /// What is stored is verified as the source does.
  void read_block(const TensorInfo& tensor, std::int64_t block, std::span<std::byte> to) const override {
    const TensorInfo& stored = *source_.find(tensor.name);
    const std::int64_t from_file = block < block_count(stored) ? block_bytes(stored, block) : 0;
    if (from_file > 0) source_.read_block(stored, block, to.first(static_cast<std::size_t>(from_file)));
    fill(stored, block * kBlockBytes + from_file, to.subspan(static_cast<std::size_t>(from_file)));
  }
  void will_read_block(const TensorInfo& tensor, std::int64_t block) const override {
    const TensorInfo& stored = *source_.find(tensor.name);
    if (block < block_count(stored)) source_.will_read_block(stored, block);
  }

 private:
  /// Bytes of added rows, from `offset` of the tensor on.
  void fill(const TensorInfo& stored, std::int64_t offset, std::span<std::byte> to) const {
    if (to.empty()) return;
    const std::vector<std::byte>& row = mean_row(stored);
    for (std::int64_t i = 0; i < std::ssize(to); ++i)
      to[static_cast<std::size_t>(i)] = row[static_cast<std::size_t>((offset + i) % std::ssize(row))];
  }

  static bool is_vocabulary(const std::string& name) {
    return name == "model.embed_tokens.weight" || name == "lm_head.weight";
  }

  template <class Load, class Store>
  std::vector<std::byte> mean_of(const TensorInfo& stored, Load load, Store store) const {
    const std::int64_t rows = stored.shape[0], width = stored.shape[1],
                       row_bytes = bytes_of(stored.dtype, width);
    std::vector<double> sum(static_cast<std::size_t>(width));
    std::vector<std::byte> row(static_cast<std::size_t>(row_bytes));
    for (std::int64_t r = 0; r < rows; ++r) {
      source_.read(stored, r * row_bytes, row);
      for (std::int64_t c = 0; c < width; ++c)
        sum[static_cast<std::size_t>(c)] += static_cast<double>(load(row, c));
    }
    for (std::int64_t c = 0; c < width; ++c)
      store(row, c, static_cast<float>(sum[static_cast<std::size_t>(c)] / static_cast<double>(rows)));
    return row;
  }

  const std::vector<std::byte>& mean_row(const TensorInfo& stored) const {
    const std::lock_guard lock(mutex_);
    std::vector<std::byte>& row = mean_rows_[stored.name];
    if (!row.empty()) return row;
    const auto get16 = [](const std::vector<std::byte>& bytes, std::int64_t i) {
      std::uint16_t word = 0;
      std::memcpy(&word, bytes.data() + 2 * i, 2);
      return word;
    };
    const auto put16 = [](std::vector<std::byte>& bytes, std::int64_t i, std::uint16_t word) {
      std::memcpy(bytes.data() + 2 * i, &word, 2);
    };
    switch (stored.dtype) {
      case DType::f32:
        return row = mean_of(
                   stored,
                   [](const std::vector<std::byte>& bytes, std::int64_t i) {
                     float value = 0;
                     std::memcpy(&value, bytes.data() + 4 * i, 4);
                     return value;
                   },
                   [](std::vector<std::byte>& bytes, std::int64_t i, float value) {
                     std::memcpy(bytes.data() + 4 * i, &value, 4);
                   });
      case DType::bf16:
        return row = mean_of(
                   stored,
                   [&](const std::vector<std::byte>& bytes, std::int64_t i) {
                     bf16 value;
                     value.bits = get16(bytes, i);
                     return static_cast<float>(value);
                   },
                   [&](std::vector<std::byte>& bytes, std::int64_t i, float value) {
                     put16(bytes, i, bf16(value).bits);
                   });
      case DType::f16:
        return row = mean_of(
                   stored,
                   [&](const std::vector<std::byte>& bytes, std::int64_t i) {
                     return f16_to_float(get16(bytes, i));
                   },
                   [&](std::vector<std::byte>& bytes, std::int64_t i, float value) {
                     put16(bytes, i, float_to_f16(value));
                   });
      default:
        throw_user_error("{}: {} is {}; a vocabulary of that type cannot grow", source_.origin(), stored.name,
                         name(stored.dtype));
    }
  }

  const TensorSource& source_;
  std::vector<TensorInfo> tensors_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::vector<std::byte>> mean_rows_;
};

}  // namespace

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config) {
  std::vector<ExpectedTensor> expected;
  for (const ModelTensor& tensor : model_tensors(config)) expected.push_back({tensor.name, tensor.shape});
  return expected;
}

std::map<std::string, std::string> duplicate_tensors(const ModelConfig& config) {
  if (!config.tied) return {};
  return {{"lm_head.weight", "model.embed_tokens.weight"}};
}

ModelSource ModelSource::open(const ModelSection& section, const HostGroup& group,
                              const std::function<void(const std::string&)>& announce) {
  ModelSource source;
  Named named;
  agree_after(group, [&] { named = source.resolve(section); });
  if (named.folder) source.folder_ = std::make_unique<HfFolder>(*named.folder, group);
  if (named.checkpoint) {
    const ResolvedCheckpoint checkpoint = resolve_checkpoint(section.path, group);
    if (!checkpoint.chosen.empty()) announce(fmt::format("{}: {}", section.path, checkpoint.chosen));
    source.open_checkpoint(checkpoint.file, group);
  }
  agree_after(group, [&] {
    if (source.random()) return;
    if (source.folder_)
      for (const fs::path& file : source.folder_->files()) source.files_.push_back(file);
    check_tensors(source.weights(), expected_tensors(source.config_), duplicate_tensors(source.config_));
  });
  return source;
}

ModelSource::Named ModelSource::resolve(const ModelSection& section) {
  if (section.init == Init::random) {
    require_user(!section.config.empty() || !section.path.empty(),
                 "model.init = random needs model.config, the config.json of the model to make");
    fs::path config = section.config;
    if (config.empty()) config = resolve_model_folder(section.path);
    open_config(fs::is_directory(config) ? config / "config.json" : config);
    return {};
  }
  require_user(!section.path.empty(),
               "model.path is missing: a Hugging Face folder, a checkpoint, or a hub id in the local cache");
  if (!names_checkpoint(section.path)) {
    const fs::path folder = resolve_model_folder(section.path);
    open_folder(folder);
    return {.folder = folder};
  }
  return {.folder = {}, .checkpoint = true};
}

void ModelSource::open_folder(const fs::path& folder) {
  origin_ = folder.string();
  // The config first: an unsupported model is refused before its weights are looked at.
  const auto text = read_side_file(folder, "config.json");
  require_user(text.has_value(), "{}: there is no config.json", folder.string());
  side_files_.config = *text;
  config_ = parse_model_config(side_files_.config, (folder / "config.json").string());
  for (const std::string& name : verne::side_files(folder)) {
    if (auto content = read_side_file(folder, name)) side_files_.tokenizer[name] = std::move(*content);
    files_.push_back(folder / name);
  }
  files_.push_back(folder / "config.json");
}

void ModelSource::open_checkpoint(const fs::path& file, const HostGroup& group) {
  origin_ = file.string();
  checkpoint_ = std::make_unique<CheckpointReader>(file, group);
  side_files_ = checkpoint_->side_files();
  state_ = checkpoint_->state();
  agree_after(group, [&] { config_ = parse_model_config(side_files_.config, origin_ + ": config"); });
  files_.push_back(file);
}

void ModelSource::open_config(const fs::path& file) {
  origin_ = file.string();
  side_files_.config = read_whole_text(file);
  config_ = parse_model_config(side_files_.config, origin_);
  files_.push_back(file);
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  for (const std::string& name : verne::side_files(folder))
    if (auto content = read_side_file(folder, name)) side_files_.tokenizer[name] = std::move(*content);
}

const TensorSource& ModelSource::weights() const {
  if (grown_) return *grown_;
  if (folder_) return *folder_;
  require(checkpoint_ != nullptr, "random weights have no source");
  return checkpoint_->tensors(CheckpointGroup::model);
}

std::optional<Tokenizer> ModelSource::tokenizer() const {
  const auto json = side_files_.tokenizer.find("tokenizer.json");
  if (json == side_files_.tokenizer.end()) return std::nullopt;
  const auto config = side_files_.tokenizer.find("tokenizer_config.json");
  return Tokenizer::from_json(json->second, config == side_files_.tokenizer.end() ? "" : config->second,
                              origin_);
}

void ModelSource::grow_vocabulary(std::int64_t vocab_size) {
  if (vocab_size <= config_.vocab_size) return;
  if (!random()) grown_ = std::make_unique<GrownVocabulary>(weights(), vocab_size);
  config_.vocab_size = vocab_size;
}

}  // namespace verne
