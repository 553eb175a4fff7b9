#include "verne/checkpoint/reader.hpp"

#include <algorithm>
#include <array>

#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "verne/io/file.hpp"
#include "verne/io/hdf5.hpp"
#include "verne/io/json.hpp"

namespace verne {
namespace {

/// One group's tensors, read with pread.
class GroupSource final : public TensorSource {
 public:
  GroupSource(const File& file, CheckpointGroup group, ChecksumIndex index, std::vector<std::int64_t> offsets,
              std::vector<std::uint64_t> checksums)
      : file_(file),
        group_(group),
        index_(std::move(index)),
        offsets_(std::move(offsets)),
        checksums_(std::move(checksums)) {}

  const std::vector<TensorInfo>& tensors() const override { return index_.tensors; }
  std::string origin() const override { return file_.path().string(); }

  void read(const TensorInfo& tensor, std::int64_t offset, std::span<std::byte> to) const override {
    const std::size_t at = position(tensor);
    const auto size = static_cast<std::int64_t>(to.size());
    const std::int64_t bytes = index_.tensors[at].bytes();
    require(offset >= 0 && offset <= bytes - size, "bytes [{}, +{}) of {} with {} bytes", offset, size,
            tensor.name, bytes);
    if (size > 0) file_.read_at(offsets_[at] + offset, to);
  }

  std::span<const std::uint64_t> checksums(const TensorInfo& tensor) const {
    const std::size_t at = position(tensor);
    return std::span(checksums_)
        .subspan(static_cast<std::size_t>(index_.first[at]),
                 static_cast<std::size_t>(block_count(index_.tensors[at])));
  }
  std::span<const std::uint64_t> all_checksums() const { return checksums_; }

 private:
  std::size_t position(const TensorInfo& tensor) const {
    const auto found = index_.position.find(tensor.name);
    require(found != index_.position.end(), "{} has no {}{}", origin(), path_of(group_), tensor.name);
    return found->second;
  }

  const File& file_;
  CheckpointGroup group_;
  ChecksumIndex index_;
  std::vector<std::int64_t> offsets_;
  std::vector<std::uint64_t> checksums_;
};

/// Byte offset of a dataset that must lie within the file in one piece; 0 for one without elements.
std::int64_t locate(const Hdf5Dataset& data, const File& file) {
  if (data.count() == 0) return 0;
  const std::int64_t at = data.file_offset();
  if (at < 0) {
    throw_user_error("{}: {} is not stored in one piece; `h5repack -l CONTI` makes it so",
                     file.path().string(), data.path());
  }
  const auto end = checked_add(at, data.bytes());
  if (!end || *end > file.size()) {
    throw_user_error("{}: {} reaches past the end of the file", file.path().string(), data.path());
  }
  return at;
}

std::vector<std::uint64_t> read_checksums(const Hdf5File& hdf5, const File& file, const std::string& path,
                                          std::int64_t count) {
  const Hdf5Dataset data = hdf5.dataset(path);
  if (data.type() != Hdf5Type::u64 || data.extents().size() != 1 || data.count() != count) {
    throw_user_error(
        "{}: {} must hold {} 64-bit checksums, one for each 16 MiB block, and has {} elements of {}",
        file.path().string(), path, count, data.count(), name(data.type()));
  }
  std::vector<std::uint64_t> checksums(static_cast<std::size_t>(count));
  const std::int64_t at = locate(data, file);
  if (count > 0) file.read_at(at, std::as_writable_bytes(std::span(checksums)));
  return checksums;
}

GroupSource open_group(const Hdf5File& hdf5, const File& file, CheckpointGroup group) {
  const std::string path(path_of(group));
  std::vector<TensorInfo> tensors;
  std::vector<std::int64_t> offsets;
  for (const std::string& name : hdf5.list(path)) {  // in byte order, as ChecksumIndex sorts
    const Hdf5Dataset data = hdf5.dataset(path + "/" + name);
    if (data.extents().size() > static_cast<std::size_t>(Shape::kMaxRank)) {
      throw_user_error("{}: {} has {} dimensions, at most {} are known", file.path().string(), data.path(),
                       data.extents().size(), Shape::kMaxRank);
    }
    offsets.push_back(locate(data, file));
    tensors.push_back({name, tensor_type(data.type(), file.path().string() + ": " + data.path()),
                       Shape(std::span<const std::int64_t>(data.extents()))});
  }
  ChecksumIndex index(std::move(tensors));
  std::vector<std::uint64_t> checksums;
  if (!index.tensors.empty()) checksums = read_checksums(hdf5, file, checksums_path_of(group), index.blocks);
  return {file, group, std::move(index), std::move(offsets), std::move(checksums)};
}

Json read_json(const Hdf5File& hdf5, const std::string& path) {
  return parse_json(hdf5.read_text(path), hdf5.path().string() + ": " + path);
}

std::vector<FrozenTensor> read_frozen(const Hdf5File& hdf5) {
  std::vector<FrozenTensor> frozen;
  if (!hdf5.contains("/frozen")) return frozen;
  const Json list = read_json(hdf5, "/frozen");
  try {
    for (const Json& entry : list) {
      frozen.push_back({entry.at("name"), entry.at("checksum"), entry.at("source")});
    }
  } catch (const nlohmann::json::exception& error) {
    throw_user_error("{}: /frozen must be a list of name, checksum and source: {}", hdf5.path().string(),
                     error.what());
  }
  return frozen;
}

}  // namespace

struct CheckpointReader::State {
  explicit State(const std::filesystem::path& checkpoint) : path(checkpoint) {}
  std::filesystem::path path;
  File file;
  CheckpointState state;
  SideFiles side_files;
  std::vector<FrozenTensor> frozen;
  std::vector<GroupSource> groups;
  std::uint64_t digest = 0;

  const GroupSource& source(CheckpointGroup group) const { return groups[static_cast<std::size_t>(group)]; }
};

CheckpointReader::CheckpointReader(const std::filesystem::path& path)
    : state_(std::make_unique<State>(path)) {
  State& state = *state_;
  const std::string where = path.string();
  const Hdf5File hdf5 = Hdf5File::open(path);
  if (!hdf5.has_attribute("/", "format") || hdf5.text_attribute("/", "format") != kCheckpointFormat) {
    throw_user_error("{}: it is an HDF5 file, but not a checkpoint", where);
  }
  if (const std::int64_t version = hdf5.integer_attribute("/", "format_version");
      version != kCheckpointFormatVersion) {
    throw_user_error("{}: checkpoint of format version {}, this program reads version {}", where, version,
                     kCheckpointFormatVersion);
  }
  state.file = File::open_read(path);
  state.state.values = read_json(hdf5, "/state");
  if (!state.state.values.is_object()) throw_user_error("{}: /state is not a JSON object", where);
  if (const auto step = state.state.values.find("step");
      step != state.state.values.end() && (!step->is_number_integer() || *step < 0)) {
    throw_user_error("{}: /state has the step {}", where, step->dump());
  }
  state.side_files.config = hdf5.read_text("/config");
  for (const std::string& name : hdf5.list("/tokenizer")) {
    state.side_files.tokenizer[name] = hdf5.read_bytes("/tokenizer/" + name);
  }
  state.frozen = read_frozen(hdf5);

  std::vector<std::uint64_t> all;
  for (const CheckpointGroup group : kAllCheckpointGroups) {
    state.groups.push_back(open_group(hdf5, state.file, group));
    const auto checksums = state.groups.back().all_checksums();
    all.insert(all.end(), checksums.begin(), checksums.end());
  }
  state.digest = xxh3(std::as_bytes(std::span(all)));
  if (state.digest != read_checksums(hdf5, state.file, "/checksums/digest", 1)[0]) {
    throw_user_error("{}: its checksums do not hash to /checksums/digest: the file is damaged or was changed",
                     where);
  }
  const auto& master = state.source(CheckpointGroup::master).tensors();
  for (const CheckpointGroup group : {CheckpointGroup::exp_avg, CheckpointGroup::exp_avg_sq}) {
    const auto& moments = state.source(group).tensors();
    const bool same = std::equal(master.begin(), master.end(), moments.begin(), moments.end(),
                                 [](const TensorInfo& left, const TensorInfo& right) {
                                   return left.name == right.name && left.shape == right.shape;
                                 });
    if (!same) throw_user_error("{}: {} and /optimizer/master hold different tensors", where, path_of(group));
  }
}
CheckpointReader::~CheckpointReader() = default;
CheckpointReader::CheckpointReader(CheckpointReader&&) noexcept = default;

const std::filesystem::path& CheckpointReader::path() const {
  return state_->path;
}
const CheckpointState& CheckpointReader::state() const {
  return state_->state;
}
const SideFiles& CheckpointReader::side_files() const {
  return state_->side_files;
}
const std::vector<FrozenTensor>& CheckpointReader::frozen() const {
  return state_->frozen;
}
bool CheckpointReader::has_optimizer() const {
  return !state_->source(CheckpointGroup::master).tensors().empty();
}
std::uint64_t CheckpointReader::digest() const {
  return state_->digest;
}
const TensorSource& CheckpointReader::tensors(CheckpointGroup group) const {
  return state_->source(group);
}
std::span<const std::uint64_t> CheckpointReader::checksums(CheckpointGroup group,
                                                           const TensorInfo& tensor) const {
  return state_->source(group).checksums(tensor);
}

void CheckpointReader::read_block(CheckpointGroup group, const TensorInfo& tensor, std::int64_t block,
                                  std::span<std::byte> to) const {
  const GroupSource& source = state_->source(group);
  require(static_cast<std::int64_t>(to.size()) == block_bytes(tensor, block), "{} bytes for block {} of {}",
          to.size(), block, tensor.name);
  source.read(tensor, block * kBlockBytes, to);
  const std::uint64_t expected = source.checksums(tensor)[static_cast<std::size_t>(block)];
  if (const std::uint64_t found = xxh3(to); found != expected) {
    throw_user_error(
        "{}: {}/{} is damaged in block {} (bytes {} to {} of the tensor): its checksum is {}, {} was "
        "written; take another "
        "checkpoint",
        state_->path.string(), path_of(group), tensor.name, block, block * kBlockBytes,
        block * kBlockBytes + static_cast<std::int64_t>(to.size()), hex64(found), hex64(expected));
  }
}

void restore_parts(const CheckpointReader& reader, CheckpointGroup from, const HostGroup& group, Queue& queue,
                   std::vector<TensorPart>& parts) {
  const TensorSource& source = reader.tensors(from);
  std::map<std::string_view, const TensorInfo*> stored;
  for (const TensorInfo& tensor : source.tensors()) stored[tensor.name] = &tensor;
  // The stored dtype decides about the bytes on the way; the file looks the same to every rank.
  std::vector<TensorPart> on_the_way = parts;
  for (TensorPart& part : on_the_way) {
    const auto found = stored.find(part.name);
    if (found == stored.end())
      throw_user_error("{}: there is no {}/{}", source.origin(), path_of(from), part.name);
    if (found->second->shape != part.shape) {
      throw_user_error("{}: {}/{} has shape {}, {} expected", source.origin(), path_of(from), part.name,
                       found->second->shape.text(), part.shape.text());
    }
    part.dtype = found->second->dtype;
  }
  scatter_blocks(group, queue, on_the_way,
                 [&](const TensorInfo& tensor, std::int64_t block, std::span<std::byte> to) {
                   reader.read_block(from, tensor, block, to);
                 });
}

void verify_checkpoint(const CheckpointReader& reader) {
  std::vector<std::byte> block;
  for (const CheckpointGroup group : kAllCheckpointGroups) {
    for (const TensorInfo& tensor : reader.tensors(group).tensors()) {
      for (std::int64_t i = 0; i < block_count(tensor); ++i) {
        block.resize(static_cast<std::size_t>(block_bytes(tensor, i)));
        reader.read_block(group, tensor, i, block);
      }
    }
  }
}

bool is_checkpoint(const std::filesystem::path& path) {
  try {
    const Hdf5File file = Hdf5File::open(path);
    return file.has_attribute("/", "format") && file.text_attribute("/", "format") == kCheckpointFormat;
  } catch (const UserError&) {
    return false;
  }
}

}  // namespace verne
