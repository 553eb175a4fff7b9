#include "verne/checkpoint/convert.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <set>

#include "draft.hpp"
#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "verne/checkpoint/reader.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/convert.hpp"
#include "verne/io/hf_folder.hpp"
#include "verne/io/json.hpp"

namespace verne {
namespace {

constexpr std::string_view kEmbedding = "embed_tokens.weight";

/// A list for a message: all of a short one, the beginning of a long one.
std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 8;
  const auto shown = std::min(names.size(), kShown);
  const auto text =
      fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  return names.size() > shown ? fmt::format("{} and {} more", text, names.size() - shown) : text;
}

bool is_floating(DType type) {
  return type == DType::f32 || type == DType::bf16 || type == DType::f16 || type == DType::f64;
}

/// Old folders carry this buffer, which follows from the config.
bool is_rotary_buffer(std::string_view name) {
  return name.ends_with("rotary_emb.inv_freq");
}

/// Elements [first, first + to.size()) of a tensor as `type`.
class ConvertingReader {
 public:
  void read(const TensorSource& source, const TensorInfo& tensor, DType type, std::int64_t first,
            std::span<std::byte> to) {
    const std::int64_t count = static_cast<std::int64_t>(to.size()) * 8 / bits(type);
    if (tensor.dtype == type) {
      source.read(tensor, bytes_of(type, first), to);
      return;
    }
    stored_.resize(static_cast<std::size_t>(bytes_of(tensor.dtype, count)));
    source.read(tensor, bytes_of(tensor.dtype, first), stored_);
    convert(tensor.dtype, stored_, type, to);
  }

 private:
  std::vector<std::byte> stored_;
};

/// This rank's share of check_duplicates.
void compare_duplicates(const TensorSource& source, const std::map<std::string, std::string>& duplicates,
                        const HostGroup& group) {
  std::vector<std::byte> left, right;
  for (const auto& [name, twin] : duplicates) {
    const TensorInfo* copy = source.find(name);
    const TensorInfo* original = source.find(twin);
    if (copy == nullptr || original == nullptr) continue;
    if (copy->dtype != original->dtype || copy->shape != original->shape) {
      throw_user_error("{}: {} ({} {}) must equal {} ({} {}), to which the config ties it", source.origin(),
                       name, verne::name(copy->dtype), copy->shape.text(), twin, verne::name(original->dtype),
                       original->shape.text());
    }
    for (std::int64_t block = group.rank(); block < block_count(*copy); block += group.size()) {
      const auto bytes = static_cast<std::size_t>(block_bytes(*copy, block));
      left.resize(bytes);
      right.resize(bytes);
      source.read(*copy, block * kBlockBytes, left);
      source.read(*original, block * kBlockBytes, right);
      if (left != right) {
        throw_user_error(
            "{}: {} differs from {}, to which the config ties it (tie_word_embeddings); set it to false to "
            "keep both",
            source.origin(), name, twin);
      }
    }
  }
}

/// The dtype that holds most of the bytes.
DType main_dtype(const std::vector<TensorInfo>& tensors) {
  std::map<DType, std::int64_t> bytes;
  for (const TensorInfo& tensor : tensors) bytes[tensor.dtype] += tensor.bytes();
  const auto most = std::max_element(bytes.begin(), bytes.end(), [](const auto& left, const auto& right) {
    return left.second < right.second;
  });
  return most == bytes.end() ? DType::f32 : most->first;
}

std::int64_t embedding_rows(const std::vector<TensorInfo>& tensors) {
  for (const TensorInfo& tensor : tensors) {
    if (tensor.name.ends_with(kEmbedding) && tensor.shape.rank() == 2) return tensor.shape[0];
  }
  return 0;
}

std::string_view hugging_face_dtype(DType type) {
  switch (type) {
    case DType::f32:
      return "float32";
    case DType::bf16:
      return "bfloat16";
    case DType::f16:
      return "float16";
    case DType::f64:
      return "float64";
    default:
      throw_user_error("weights of {} have no name in config.json", name(type));
  }
}

/// Puts the template that was trained where transformers and servers look for it.
void set_chat_template(std::map<std::string, std::string>& files, const std::string& text) {
  if (const auto jinja = files.find("chat_template.jinja"); jinja != files.end()) jinja->second = text;
  files.erase("chat_template.json");
  auto& config = files["tokenizer_config.json"];
  if (config.empty()) config = "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n";
  const std::array edits{JsonEdit{"chat_template", Json(text)}};
  config = edit_json(config, edits, "tokenizer_config.json");
}

/// Generation stops on the token that was trained to end an answer, and on those that ended it before.
void set_end_token(std::map<std::string, std::string>& files, std::int64_t token) {
  auto& config = files["generation_config.json"];
  if (config.empty()) config = "{}\n";
  const Json parsed = parse_json(config, "generation_config.json");
  std::vector<std::int64_t> tokens{token};
  if (const auto old = parsed.find("eos_token_id"); old != parsed.end() && !old->is_null()) {
    for (const Json& value : old->is_array() ? *old : Json::array({*old})) {
      if (!value.is_number_integer())
        throw_user_error("generation_config.json: eos_token_id {} is not a token id", value.dump());
      if (value.get<std::int64_t>() != token) tokens.push_back(value);
    }
  }
  const std::array edits{JsonEdit{"eos_token_id", tokens.size() == 1 ? Json(token) : Json(tokens)},
                         JsonEdit{"_from_model_config", std::nullopt}};
  config = edit_json(config, edits, "generation_config.json");
}

}  // namespace

void check_tensors(const TensorSource& source, const std::vector<ExpectedTensor>& expected,
                   const std::map<std::string, std::string>& duplicates) {
  std::map<std::string_view, const TensorInfo*> found;
  for (const TensorInfo& tensor : source.tensors()) found[tensor.name] = &tensor;
  std::set<std::string_view> wanted;
  std::vector<std::string> missing, left_over, misshapen;
  for (const ExpectedTensor& parameter : expected) {
    wanted.insert(parameter.name);
    const auto tensor = found.find(parameter.name);
    if (tensor == found.end()) {
      missing.push_back(parameter.name);
    } else if (tensor->second->shape != parameter.shape) {
      misshapen.push_back(fmt::format("{} is {}, expected {}", parameter.name, tensor->second->shape.text(),
                                      parameter.shape.text()));
    } else if (!is_floating(tensor->second->dtype)) {
      misshapen.push_back(fmt::format("{} is of dtype {}", parameter.name, name(tensor->second->dtype)));
    }
  }
  for (const TensorInfo& tensor : source.tensors()) {
    if (!wanted.contains(tensor.name) && !duplicates.contains(tensor.name) &&
        !is_rotary_buffer(tensor.name)) {
      left_over.push_back(tensor.name);
    }
  }
  for (const UnsupportedTensor& tensor : source.unsupported()) {
    if (is_rotary_buffer(tensor.name)) continue;
    left_over.push_back(tensor.text());
    std::erase(missing, tensor.name);
  }
  if (missing.empty() && left_over.empty() && misshapen.empty()) return;
  std::string text;
  if (!missing.empty()) text += fmt::format("; missing: {}", listed(missing));
  if (!left_over.empty()) text += fmt::format("; not part of the model: {}", listed(left_over));
  if (!misshapen.empty()) text += fmt::format("; not as the model has it: {}", listed(misshapen));
  throw_user_error("{}: its tensors do not fit the model that config.json describes{}", source.origin(),
                   text);
}

void check_duplicates(const TensorSource& source, const std::map<std::string, std::string>& duplicates,
                      const HostGroup& group) {
  agree_after(group, [&] { compare_duplicates(source, duplicates, group); });
}

std::string updated_config(const std::string& config, DType dtype, std::int64_t vocab_size) {
  const Json parsed = parse_json(config, "config.json");
  std::vector<JsonEdit> edits;
  for (const char* key : {"dtype", "torch_dtype"}) {
    const auto value = parsed.find(key);
    if (value != parsed.end() && *value != hugging_face_dtype(dtype))
      edits.push_back({key, Json(hugging_face_dtype(dtype))});
  }
  const auto rows = parsed.find("vocab_size");
  if (rows != parsed.end() && rows->is_number_integer() && *rows < vocab_size)
    edits.push_back({"vocab_size", Json(vocab_size)});
  return edits.empty() ? config : edit_json(config, edits, "config.json");
}

namespace {

/// What import writes, known to every rank.
struct Imported {
  std::unique_ptr<HfFolder> source;
  std::vector<TensorInfo> tensors;  ///< as they will be stored
  CheckpointState state;
  SideFiles side_files;
};

/// All but the source, which is open.
void prepare_import(const ImportOptions& options, Imported& imported) {
  check_tensors(*imported.source, options.expected, options.duplicates);
  std::map<std::string_view, DType> stored;
  for (const TensorInfo& tensor : imported.source->tensors()) stored[tensor.name] = tensor.dtype;
  for (const ExpectedTensor& parameter : options.expected) {
    imported.tensors.push_back(
        {parameter.name, options.dtype.value_or(stored.at(parameter.name)), parameter.shape});
  }
  const std::string config = imported.source->config_text();
  imported.side_files.config = options.dtype ? updated_config(config, *options.dtype, 0) : config;
  for (const std::string& name : side_files(options.input)) {
    imported.side_files.tokenizer[name] = read_side_file(options.input, name).value_or("");
  }
  imported.state.values = {{"step", 0}, {"source", options.source}};
}

/// Each rank takes its turn among the blocks: reads, converts, writes and hashes them.
std::vector<BlockChecksum> write_blocks(const TensorSource& source, const BlockIndex& index,
                                        const HostGroup& group, const File& file,
                                        const std::vector<std::int64_t>& offsets) {
  std::map<std::string_view, const TensorInfo*> stored;
  for (const TensorInfo& tensor : source.tensors()) stored[tensor.name] = &tensor;
  std::vector<BlockChecksum> checksums;
  ConvertingReader reader;
  std::vector<std::byte> bytes;
  for (std::int64_t block = group.rank(); block < index.blocks(); block += group.size()) {
    const BlockIndex::Place place = index.place(block);
    const TensorInfo& tensor = index.tensors()[place.tensor];
    bytes.resize(static_cast<std::size_t>(block_bytes(tensor, place.block)));
    reader.read(source, *stored.at(tensor.name), tensor.dtype, place.begin, bytes);
    const std::int64_t at = offsets[place.tensor] + place.block * kBlockBytes;
    file.write_at(at, bytes);
    file.begin_sync(at, std::ssize(bytes));
    checksums.push_back({block, xxh3(bytes)});
  }
  return checksums;
}

}  // namespace

void import_model(const ImportOptions& options, const HostGroup& group) {
  Imported imported;
  imported.source = std::make_unique<HfFolder>(options.input, group);
  agree_after(group, [&] { prepare_import(options, imported); });
  check_duplicates(*imported.source, options.duplicates, group);

  ByGroup<std::vector<TensorInfo>> groups;
  groups[index_of(CheckpointGroup::model)] = imported.tensors;
  const FileTensors tensors(std::move(groups));
  const std::vector<FrozenTensor> no_frozen;
  FileLayout layout;
  layout.offsets.resize(tensors.index().tensors().size());
  agree_after(group, [&] {
    if (group.rank() == 0)
      layout = lay_out(tensors, {imported.state, imported.side_files, no_frozen}, options.output.string());
  });
  group.broadcast(std::as_writable_bytes(std::span(layout.offsets)), 0);

  Draft draft(options.output, group, &layout);
  const bool first_of_kernel = find_kernel_mates(group).first;
  File file;
  std::vector<BlockChecksum> checksums;
  agree_after(group, [&] {
    file = File::open_write(draft.temporary());
    checksums = write_blocks(*imported.source, tensors.index(), group, file, layout.offsets);
    if (!first_of_kernel) file.close();
  });
  agree_after(group, [&] {
    if (first_of_kernel) file.sync();
  });
  draft.publish(group, tensors, &layout, checksums);
}

void export_model(const ExportOptions& options, const HostGroup& group) {
  const CheckpointReader reader(options.checkpoint, group);
  const TensorSource& model = reader.tensors(CheckpointGroup::model);
  const auto& tensors = model.tensors();
  std::map<std::string, std::string> files;
  std::string config;
  agree_after(group, [&] {
    if (!reader.frozen().empty()) {
      throw_user_error("{}: it refers to {} frozen tensors of {} and is no whole model",
                       options.checkpoint.string(), reader.frozen().size(), reader.frozen().front().source);
    }
    if (tensors.empty()) throw_user_error("{}: it holds no model", options.checkpoint.string());
    config = updated_config(reader.side_files().config, main_dtype(tensors), embedding_rows(tensors));
    files = reader.side_files().tokenizer;
    if (options.chat_template) set_chat_template(files, *options.chat_template);
    if (options.end_token_id) set_end_token(files, *options.end_token_id);
    for (const auto& [name, content] : options.extra_files) files[name] = content;
  });

  HfFolderWriter writer(group, options.output, tensors, options.shard_bytes);
  agree_after(group, [&] {
    std::vector<std::byte> bytes;
    std::int64_t next = 0;
    for (const TensorInfo& tensor : tensors) {
      for (std::int64_t block = 0; block < block_count(tensor); ++block) {
        if (next++ % group.size() != group.rank()) continue;
        bytes.resize(static_cast<std::size_t>(block_bytes(tensor, block)));
        model.read_block(tensor, block, bytes);
        writer.write(tensor, block * kBlockBytes, bytes);
      }
    }
    writer.add_file("config.json", config);
    for (const auto& [name, content] : files) writer.add_file(name, content);
  });
  writer.publish();
}

}  // namespace verne
