#include "verne/io/hf_folder.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <set>

#include "verne/base/error.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/json.hpp"
#include "verne/io/packed_texts.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kWeightsFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";

constexpr std::array<std::string_view, 9> kSideFiles = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
};

std::optional<std::string> environment(const char* name) {
  const char* value = std::getenv(name);
  if (!value || !*value) return std::nullopt;
  return value;
}

fs::path hub_cache() {
  if (const auto path = environment("HF_HUB_CACHE")) return *path;
  if (const auto path = environment("HUGGINGFACE_HUB_CACHE")) return *path;
  if (const auto path = environment("HF_HOME")) return fs::path(*path) / "hub";
  if (const auto path = environment("XDG_CACHE_HOME")) return fs::path(*path) / "huggingface" / "hub";
  return fs::path(environment("HOME").value_or("/")) / ".cache" / "huggingface" / "hub";
}

/// "name" or "organisation/name" of the characters that the hub allows.
bool is_hub_id(const std::string& text) {
  if (text.empty() || std::count(text.begin(), text.end(), '/') > 1) return false;
  if (text.front() == '/' || text.back() == '/' || text.front() == '.' || text.front() == '~') return false;
  if (text.find("..") != std::string::npos || text.find("--") != std::string::npos) return false;
  return std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '-' || c == '_' || c == '.' || c == '/';
  });
}

std::optional<fs::path> cached_snapshot(const fs::path& repository) {
  std::error_code error;
  const fs::path reference = repository / "refs" / "main";
  if (fs::is_regular_file(reference, error)) {
    std::string commit = read_whole_text(reference, 1 << 12);
    commit.erase(std::find_if(commit.begin(), commit.end(), [](unsigned char c) { return std::isspace(c); }),
                 commit.end());
    const fs::path snapshot = repository / "snapshots" / commit;
    if (!commit.empty() && commit.find('/') == std::string::npos && commit != "." && commit != ".." &&
        fs::is_directory(snapshot, error))
      return snapshot;
  }
  // Fetched by commit: there is no ref, and only one snapshot leaves no doubt.
  std::vector<fs::path> snapshots;
  for (fs::directory_iterator it(repository / "snapshots", error), end; !error && it != end;
       it.increment(error))
    if (it->is_directory(error)) snapshots.push_back(it->path());
  if (snapshots.size() == 1) return snapshots[0];
  return std::nullopt;
}

/// A shard that the index names: inside the folder, or, where the folder is a snapshot of the hub's cache, a
/// link to that cache's own blobs.
bool is_allowed_shard(const fs::path& folder, const std::string& name) {
  if (is_inside(folder, name)) return true;
  std::error_code error;
  const fs::path snapshot = fs::canonical(folder, error);
  if (error || snapshot.parent_path().filename() != "snapshots") return false;
  const fs::path plain(name);
  if (plain.is_absolute() || plain.has_parent_path() || plain == "..") return false;
  const fs::path repository = snapshot.parent_path().parent_path();
  const fs::path blob = fs::canonical(snapshot / plain, error);
  return !error && blob.parent_path() == repository / "blobs";
}

/// The index's weight_map: tensor → file, in the index's order.
std::vector<std::pair<std::string, std::string>> read_weight_map(const fs::path& path) {
  const Json index = read_json_file(path, {.max_bytes = 256 << 20});
  require_user(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(),
               "{}: expected an object with weight_map, which maps tensors to files", path.string());
  std::vector<std::pair<std::string, std::string>> map;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    require_user(file.is_string(), "{}: weight_map has {} for \"{}\"; expected the name of a file",
                 path.string(), file.type_name(), tensor);
    map.emplace_back(tensor, file.get<std::string>());
  }
  require_user(!map.empty(), "{}: weight_map is empty", path.string());
  return map;
}

}  // namespace

fs::path resolve_model_folder(const std::string& name) {
  std::error_code error;
  require_user(!name.empty(), "The model path is empty; expected a Hugging Face folder or a hub id");
  if (fs::is_directory(name, error)) return name;
  require_user(!fs::exists(name, error), "{}: not a folder; expected a Hugging Face folder or a hub id",
               name);
  require_user(is_hub_id(name), "{}: there is no such folder", name);
  std::string entry = "models--" + name;
  if (const auto slash = entry.find('/'); slash != std::string::npos) entry.replace(slash, 1, "--");
  const fs::path cache = hub_cache();
  if (const auto snapshot = cached_snapshot(cache / entry)) return *snapshot;
  throw_user_error(
      "{}: neither a folder nor a model in the Hugging Face cache {} (looked for {}/refs/main and its "
      "snapshot); give a "
      "folder, or fetch it first with: hf download {}",
      name, cache.string(), entry, name);
}

std::vector<std::string> side_files(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const std::string_view name : kSideFiles)
    if (fs::exists(folder / name, error)) names.emplace_back(name);
  return names;
}

std::optional<std::string> read_side_file(const fs::path& folder, const std::string& name) {
  std::error_code error;
  if (!fs::exists(folder / name, error)) return std::nullopt;
  return read_whole_text(folder / name);
}

// --- HfFolder ---

HfFolder::HfFolder(const fs::path& folder) : folder_(folder) {
  std::error_code error;
  require_user(fs::is_directory(folder, error),
               "{}: there is no such folder; expected a Hugging Face model folder", folder.string());
  if (fs::exists(folder / kWeightsFile, error)) {
    add_shard(SafetensorsFile(folder / kWeightsFile));
    return;
  }
  const fs::path index = folder / kIndexFile;
  require_user(fs::exists(index, error), "{}: no weights: neither {} nor {} is there", folder.string(),
               kWeightsFile, kIndexFile);
  files_.push_back(index);
  const auto weight_map = read_weight_map(index);
  std::map<std::string, std::size_t, std::less<>> shard_of_file;
  for (const auto& [tensor, file] : weight_map) {
    if (shard_of_file.contains(file)) continue;
    require_user(is_allowed_shard(folder, file),
                 "{}: weight_map puts \"{}\" in \"{}\", which is not inside the folder; move the file into "
                 "the folder and "
                 "name it without a path",
                 index.string(), tensor, file);
    require_user(fs::exists(folder / file, error),
                 "{}: weight_map puts \"{}\" in \"{}\", which is not there: download is "
                 "incomplete or the index belongs to other files",
                 index.string(), tensor, file);
    shard_of_file.emplace(file, shards_.size());
    add_shard(SafetensorsFile(folder / file));
  }
  std::size_t listed = 0;
  for (const auto& [tensor, file] : weight_map) {
    const auto found = shard_of_.find(tensor);
    require_user(found != shard_of_.end() && found->second == shard_of_file.find(file)->second,
                 "{}: weight_map puts \"{}\" in \"{}\", but {}", index.string(), tensor, file,
                 found == shard_of_.end() ? std::string("no shard holds it")
                                          : "it is in " + shards_[found->second].origin());
    ++listed;
  }
  if (listed == shard_of_.size()) return;
  std::map<std::string, int, std::less<>> known;
  for (const auto& [tensor, file] : weight_map) known.emplace(tensor, 0);
  for (const auto& [tensor, shard] : shard_of_) {
    require_user(known.contains(tensor), "{}: weight_map does not name \"{}\", which {} holds",
                 index.string(), tensor, shards_[shard].origin());
  }
}

HfFolder::HfFolder(const fs::path& folder, const HostGroup& group) {
  std::string packed;
  agree_after(group, [&] {
    if (group.rank() != 0) return;
    *this = HfFolder(folder);
    if (group.size() > 1) packed = pack();
  });
  packed = group.broadcast_text(std::move(packed), 0);
  agree_after(group, [&] {
    if (group.rank() == 0) return;
    folder_ = folder;
    unpack(packed);
  });
}

/// Every file's path, and of a shard its size and its header.
std::string HfFolder::pack() const {
  PackedTexts packed;
  std::set<fs::path> shards;
  for (const SafetensorsFile& shard : shards_) shards.insert(shard.path());
  for (const fs::path& file : files_) {
    packed.add(file.string());
    packed.add(shards.contains(file) ? std::to_string(fs::file_size(file)) : "");
    packed.add(shards.contains(file) ? read_safetensors_header(file) : "");
  }
  return packed.take();
}

void HfFolder::unpack(std::string_view packed) {
  UnpackedTexts texts(packed);
  while (!texts.at_end()) {
    const fs::path file(texts.next());
    const std::string bytes(texts.next());
    const std::string_view header = texts.next();
    if (header.empty()) {
      files_.push_back(file);
    } else {
      add_shard(SafetensorsFile(file, header, std::stoll(bytes)));
    }
  }
}

void HfFolder::add_shard(SafetensorsFile added) {
  const std::size_t shard = shards_.size();
  files_.push_back(added.path());
  shards_.push_back(std::move(added));
  const auto add = [&](const std::string& name) {
    const auto [known, is_new] = shard_of_.emplace(name, shard);
    require_user(is_new, "{}: tensor \"{}\" is in {} and in {}", folder_.string(), name,
                 shards_[known->second].origin(), shards_[shard].origin());
  };
  for (const TensorInfo& tensor : shards_[shard].tensors()) {
    add(tensor.name);
    tensors_.push_back(tensor);
  }
  for (const UnsupportedTensor& tensor : shards_[shard].unsupported()) {
    add(tensor.name);
    unsupported_.push_back(tensor);
  }
}

void HfFolder::read(const TensorInfo& tensor, std::int64_t offset, std::span<std::byte> to) const {
  shard_with(tensor).read(tensor, offset, to);
}

void HfFolder::will_read_block(const TensorInfo& tensor, std::int64_t block) const {
  shard_with(tensor).will_read_block(tensor, block);
}

const SafetensorsFile& HfFolder::shard_with(const TensorInfo& tensor) const {
  const auto shard = shard_of_.find(tensor.name);
  require(shard != shard_of_.end(), "{} has no tensor {}", origin(), tensor.name);
  return shards_[shard->second];
}

std::string HfFolder::config_text() const {
  const auto text = read_side_file(folder_, "config.json");
  require_user(text.has_value(), "{}: no config.json in this folder", folder_.string());
  return *text;
}

// --- HfFolderWriter ---

std::vector<HfShard> plan_hf_shards(const std::vector<TensorInfo>& tensors, std::int64_t max_shard_bytes) {
  require(max_shard_bytes > 0, "shards of {} bytes", max_shard_bytes);
  std::vector<HfShard> shards(1);
  std::int64_t filled = 0;
  for (const TensorInfo& tensor : tensors) {
    if (!shards.back().tensors.empty() && filled + tensor.bytes() > max_shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().tensors.push_back(tensor);
    filled += tensor.bytes();
  }
  for (std::size_t i = 0; i < shards.size(); ++i) {
    shards[i].file = shards.size() == 1
                         ? std::string(kWeightsFile)
                         : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
  }
  return shards;
}

HfFolderWriter::HfFolderWriter(const HostGroup& group, const fs::path& folder,
                               const std::vector<TensorInfo>& tensors, std::int64_t max_shard_bytes)
    : group_(group), shards_(plan_hf_shards(tensors, max_shard_bytes)) {
  std::vector<std::int64_t> file_bytes;
  std::vector<std::string> headers;
  for (std::size_t shard = 0; shard < shards_.size(); ++shard) {
    SafetensorsLayout layout = layout_safetensors(shards_[shard].tensors);
    for (const TensorInfo& tensor : shards_[shard].tensors) {
      const bool added =
          places_.emplace(tensor.name, Place{shard, layout.begin.find(tensor.name)->second, tensor.bytes()})
              .second;
      require(added, "tensor {} twice in one folder", tensor.name);
    }
    file_bytes.push_back(layout.file_bytes);
    headers.push_back(std::move(layout.header));
  }
  agree_after(group_, [&] {
    if (group_.rank() != 0) return;
    directory_.emplace(folder, "config.json");
    for (std::size_t shard = 0; shard < shards_.size(); ++shard) {
      const File file = File::create(directory_->temporary() / shards_[shard].file);
      file.reserve(file_bytes[shard]);
      file.write_at(0, std::as_bytes(std::span(headers[shard])));
    }
  });
  temporary_ = group_.broadcast_text(directory_ ? directory_->temporary().string() : "", 0);
  agree_after(group_, [&] {
    for (const HfShard& shard : shards_) files_.push_back(File::open_write(temporary_ / shard.file));
  });
}

HfFolderWriter::~HfFolderWriter() = default;

void HfFolderWriter::write(const TensorInfo& tensor, std::int64_t offset, std::span<const std::byte> bytes) {
  const auto found = places_.find(tensor.name);
  require(found != places_.end(), "the folder being written has no place for tensor {}", tensor.name);
  const Place& place = found->second;
  require(offset >= 0 && offset + static_cast<std::int64_t>(bytes.size()) <= place.bytes,
          "bytes [{}, {}) of {} bytes of {}", offset, offset + static_cast<std::int64_t>(bytes.size()),
          place.bytes, tensor.name);
  files_[place.shard].write_at(place.begin + offset, bytes);
}

void HfFolderWriter::add_file(const std::string& name, std::string_view content) {
  require(!name.empty() && name.find('/') == std::string::npos && name != "." && name != "..",
          "side file \"{}\"", name);
  if (!directory_) return;
  File file = File::create(temporary_ / name);
  file.write_at(0, std::as_bytes(std::span(content)));
  file.close();
}

void HfFolderWriter::publish() {
  agree_after(group_, [&] {
    for (File& file : files_) {
      file.sync();
      file.close();
    }
  });
  agree_after(group_, [&] {
    if (!directory_) return;
    if (shards_.size() > 1) {
      std::int64_t total = 0;
      Json weight_map = Json::object();
      auto& members =
          static_cast<std::vector<Json::object_t::value_type>&>(weight_map.get_ref<Json::object_t&>());
      for (const HfShard& shard : shards_) {
        for (const TensorInfo& tensor : shard.tensors) {
          members.emplace_back(tensor.name, shard.file);
          total += tensor.bytes();
        }
      }
      Json index = Json::object();
      index["metadata"] = {{"total_size", total}};
      index["weight_map"] = std::move(weight_map);
      add_file(std::string(kIndexFile), dump_json(index));
    }
    directory_->publish();
  });
}

}  // namespace verne
