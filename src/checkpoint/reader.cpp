#include "verne/checkpoint/reader.hpp"

#include <algorithm>

#include "opened.hpp"
#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/block_hash.hpp"
#include "verne/io/file.hpp"
#include "verne/io/json.hpp"

namespace verne {
namespace {

/// One group's tensors, read with pread.
class GroupSource final : public TensorSource {
 public:
  GroupSource(const File& file, CheckpointGroup group, std::vector<StoredTensor> tensors,
              std::span<const std::uint64_t> checksums)
      : file_(file), group_(group), index_(infos_of(tensors, offsets_)) {
    const auto own = checksums.first(static_cast<std::size_t>(index_.blocks()));
    checksums_.assign(own.begin(), own.end());
  }

  const std::vector<TensorInfo>& tensors() const override { return index_.tensors(); }
  std::string origin() const override { return file_.path().string() + ": " + std::string(path_of(group_)); }
  std::int64_t blocks() const { return index_.blocks(); }
  /// UserError unless these are the same tensors at the same places.
  void check(std::span<const StoredTensor> others) const {
    for (std::size_t i = 0; i < std::max(others.size(), tensors().size()); ++i) {
      const bool same = i < others.size() && i < tensors().size() &&
                        others[i].info.name == tensors()[i].name &&
                        others[i].info.dtype == tensors()[i].dtype &&
                        others[i].info.shape == tensors()[i].shape && others[i].offset == offsets_[i];
      if (!same)
        throw_user_error("{}: /index and {} differ from {} on: the file was changed", file_.path().string(),
                         path_of(group_), i < others.size() ? others[i].info.name : tensors()[i].name);
    }
  }

  void read(const TensorInfo& tensor, std::int64_t offset, std::span<std::byte> to) const override {
    const std::size_t at = position(tensor);
    const auto size = static_cast<std::int64_t>(to.size());
    const std::int64_t bytes = tensors()[at].bytes();
    require(offset >= 0 && offset <= bytes - size, "bytes [{}, +{}) of {} with {} bytes", offset, size,
            tensor.name, bytes);
    if (size > 0) file_.read_at(offsets_[at] + offset, to);
  }

  void will_read_block(const TensorInfo& tensor, std::int64_t block) const override {
    file_.will_read(offsets_[position(tensor)] + block * kBlockBytes, block_bytes(tensor, block));
  }

  void read_block(const TensorInfo& tensor, std::int64_t block, std::span<std::byte> to) const override {
    require(std::ssize(to) == block_bytes(tensor, block), "{} bytes for block {} of {}", to.size(), block,
            tensor.name);
    const std::size_t at = position(tensor);
    const std::int64_t begin = offsets_[at] + block * kBlockBytes;
    BlockHash hash;
    for_each_piece(to, [&](std::int64_t offset, std::span<std::byte> piece) {
      file_.read_at(begin + offset, piece);
      hash.update(piece);
    });
    const std::uint64_t expected = checksums_[static_cast<std::size_t>(index_.number(at, block))],
                        found = hash.value();
    if (found == expected) return;
    throw_user_error(
        "{}: {}/{} is damaged in block {} (bytes {} to {} of the tensor): its checksum is {}, {} was "
        "written; take another checkpoint",
        file_.path().string(), path_of(group_), tensor.name, block, block * kBlockBytes,
        block * kBlockBytes + std::ssize(to), hex64(found), hex64(expected));
  }

 private:
  static std::vector<TensorInfo> infos_of(std::vector<StoredTensor>& tensors,
                                          std::vector<std::int64_t>& offsets) {
    std::vector<TensorInfo> infos;
    for (StoredTensor& tensor : tensors) {
      infos.push_back(std::move(tensor.info));
      offsets.push_back(tensor.offset);
    }
    return infos;
  }

  std::size_t position(const TensorInfo& tensor) const {
    const auto found =
        std::lower_bound(tensors().begin(), tensors().end(), tensor.name,
                         [](const TensorInfo& info, const std::string& name) { return info.name < name; });
    require(found != tensors().end() && found->name == tensor.name, "{} has no {}", origin(), tensor.name);
    return static_cast<std::size_t>(found - tensors().begin());
  }

  const File& file_;
  CheckpointGroup group_;
  std::vector<std::int64_t> offsets_;
  BlockIndex index_;
  std::vector<std::uint64_t> checksums_;
};

std::vector<FrozenTensor> parse_frozen(const std::string& text, const std::string& where) {
  std::vector<FrozenTensor> frozen;
  if (text.empty()) return frozen;
  const Json list = parse_json(text, where + ": /frozen");
  try {
    for (const Json& entry : list) {
      frozen.push_back({entry.at("name"), entry.at("checksum"), entry.at("source")});
    }
  } catch (const nlohmann::json::exception& error) {
    throw_user_error("{}: /frozen must be a list of name, checksum and source: {}", where, error.what());
  }
  return frozen;
}

}  // namespace

struct CheckpointReader::State {
  State(const std::filesystem::path& checkpoint, OpenedCheckpoint opened)
      : path(checkpoint),
        file(File::open_read(checkpoint)),
        state(parse_state(opened.state, checkpoint.string())),
        side_files(std::move(opened.side_files)),
        frozen(parse_frozen(opened.frozen, checkpoint.string())),
        digest(opened.digest) {
    std::span<const std::uint64_t> checksums = opened.checksums;
    for (const CheckpointGroup group : kAllCheckpointGroups) {
      groups.emplace_back(file, group, std::move(opened.index.groups[index_of(group)]), checksums);
      checksums = checksums.subspan(static_cast<std::size_t>(groups.back().blocks()));
    }
  }

  std::filesystem::path path;
  File file;
  CheckpointState state;
  SideFiles side_files;
  std::vector<FrozenTensor> frozen;
  std::vector<GroupSource> groups;
  std::uint64_t digest = 0;

  const GroupSource& source(CheckpointGroup group) const { return groups[index_of(group)]; }
};

CheckpointReader::CheckpointReader(const std::filesystem::path& path)
    : state_(std::make_unique<State>(path, open_checkpoint(path))) {}

CheckpointReader::CheckpointReader(const std::filesystem::path& path, const HostGroup& group) {
  OpenedCheckpoint opened;
  std::string packed;
  agree_after(group, [&] {
    if (group.rank() != 0) return;
    opened = open_checkpoint(path);
    if (group.size() > 1) packed = pack(opened);
  });
  packed = group.broadcast_text(std::move(packed), 0);
  agree_after(group, [&] {
    if (group.rank() != 0) opened = unpack(packed, path.string());
    state_ = std::make_unique<State>(path, std::move(opened));
  });
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

void verify_checkpoint(const CheckpointReader& reader) {
  const Hdf5File hdf5 = Hdf5File::open(reader.path());
  const CheckpointIndex walked =
      walk_tensors(hdf5, static_cast<std::int64_t>(std::filesystem::file_size(reader.path())));
  std::vector<std::byte> block;
  for (const CheckpointGroup group : kAllCheckpointGroups) {
    const auto& source = static_cast<const GroupSource&>(reader.tensors(group));
    source.check(walked.groups[index_of(group)]);
    for (const TensorInfo& tensor : source.tensors()) {
      for (std::int64_t i = 0; i < block_count(tensor); ++i) {
        block.resize(static_cast<std::size_t>(block_bytes(tensor, i)));
        source.read_block(tensor, i, block);
      }
    }
  }
}

CheckpointKind checkpoint_kind(const std::filesystem::path& path) {
  const Hdf5File hdf5 = Hdf5File::open(path);
  check_format(hdf5);
  return hdf5.contains("/optimizer") ? CheckpointKind::resumable : CheckpointKind::weights_only;
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
