#include "opened.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "verne/io/file.hpp"
#include "verne/io/json.hpp"
#include "verne/io/packed_texts.hpp"

namespace verne {
namespace {

/// Bytes [offset, offset + bytes) of the file, which a dataset says it has there.
std::vector<std::byte> read_raw(const File& file, const Hdf5Dataset& data) {
  const std::int64_t at = data.count() == 0 ? 0 : data.file_offset();
  const auto end = checked_add(at, data.bytes());
  if (at < 0 || !end || *end > file.size()) {
    throw_user_error("{}: {} is not stored in one piece within the file", file.path().string(), data.path());
  }
  std::vector<std::byte> bytes(static_cast<std::size_t>(data.bytes()));
  file.read_at(at, bytes);
  return bytes;
}

void append_checksums(const Hdf5File& hdf5, const File& file, const std::string& path, std::int64_t count,
                      std::vector<std::uint64_t>& checksums) {
  const Hdf5Dataset data = hdf5.dataset(path);
  if (data.type() != Hdf5Type::u64 || data.extents().size() != 1 || data.count() != count) {
    throw_user_error(
        "{}: {} must hold {} 64-bit checksums, one for each 16 MiB block, and has {} elements of {}",
        file.path().string(), path, count, data.count(), name(data.type()));
  }
  const std::vector<std::byte> bytes = read_raw(file, data);
  const std::size_t before = checksums.size();
  checksums.resize(before + static_cast<std::size_t>(count));
  if (!bytes.empty()) std::memcpy(checksums.data() + before, bytes.data(), bytes.size());
}

/// Whether the index still speaks of this file. A program that replaces a dataset leaves another size or
/// another number of names; a few datasets of each group are looked into.
bool is_current(const CheckpointIndex& index, const Hdf5File& hdf5, std::int64_t file_bytes) {
  if (index.file_bytes != file_bytes) return false;
  for (const CheckpointGroup group : kAllCheckpointGroups) {
    const std::string path(path_of(group));
    const auto& tensors = index.groups[index_of(group)];
    if (hdf5.count(path) != std::ssize(tensors)) return false;
    if (tensors.empty()) continue;
    for (const std::size_t i : {std::size_t{0}, tensors.size() / 2, tensors.size() - 1}) {
      const TensorInfo& info = tensors[i].info;
      if (!hdf5.contains(path + "/" + info.name)) return false;
      const Hdf5Dataset data = hdf5.dataset(path + "/" + info.name);
      if (data.type() != hdf5_type(info.dtype) || !std::ranges::equal(data.extents(), info.shape.extents()) ||
          std::max<std::int64_t>(data.file_offset(), 0) != tensors[i].offset)
        return false;
    }
  }
  return true;
}

CheckpointIndex read_index(const Hdf5File& hdf5, const File& file) {
  if (hdf5.contains("/index")) {
    const Hdf5Dataset data = hdf5.dataset("/index");
    if (data.type() != Hdf5Type::u8) throw_user_error("{}: /index is not of bytes", file.path().string());
    CheckpointIndex index = parse_index(read_raw(file, data), file.path().string());
    if (is_current(index, hdf5, file.size())) return index;
  }
  return walk_tensors(hdf5, file.size());
}

void check_optimizer(const CheckpointIndex& index, const std::string& where) {
  const auto& master = index.groups[index_of(CheckpointGroup::master)];
  for (const CheckpointGroup group : {CheckpointGroup::exp_avg, CheckpointGroup::exp_avg_sq}) {
    const auto& moments = index.groups[index_of(group)];
    const bool same =
        std::equal(master.begin(), master.end(), moments.begin(), moments.end(),
                   [](const StoredTensor& left, const StoredTensor& right) {
                     return left.info.name == right.info.name && left.info.shape == right.info.shape;
                   });
    if (!same) throw_user_error("{}: {} and /optimizer/master hold different tensors", where, path_of(group));
  }
}

}  // namespace

void check_format(const Hdf5File& hdf5) {
  const std::string where = hdf5.path().string();
  if (!hdf5.has_attribute("/", "format") || hdf5.text_attribute("/", "format") != kCheckpointFormat) {
    throw_user_error("{}: it is an HDF5 file, but not a checkpoint", where);
  }
  const std::int64_t version = hdf5.integer_attribute("/", "format_version");
  if (version != kCheckpointFormatVersion) {
    throw_user_error("{}: checkpoint of format version {}, this program reads version {}", where, version,
                     kCheckpointFormatVersion);
  }
}

CheckpointIndex walk_tensors(const Hdf5File& hdf5, std::int64_t file_bytes) {
  CheckpointIndex index;
  index.file_bytes = file_bytes;
  for (const CheckpointGroup group : kAllCheckpointGroups) {
    auto& tensors = index.groups[index_of(group)];
    tensors = hdf5.tensors(std::string(path_of(group)));
    for (const StoredTensor& tensor : tensors) {
      if (tensor.info.bytes() > file_bytes || tensor.offset > file_bytes - tensor.info.bytes()) {
        throw_user_error("{}: {}/{} reaches past the end of the file", hdf5.path().string(), path_of(group),
                         tensor.info.name);
      }
    }
  }
  return index;
}

CheckpointState parse_state(const std::string& text, const std::string& where) {
  CheckpointState state;
  state.values = parse_json(text, where + ": /state");
  if (!state.values.is_object()) throw_user_error("{}: /state is not a JSON object", where);
  if (const auto step = state.values.find("step");
      step != state.values.end() && (!step->is_number_integer() || *step < 0)) {
    throw_user_error("{}: /state has the step {}", where, step->dump());
  }
  return state;
}

OpenedCheckpoint open_checkpoint(const std::filesystem::path& path) {
  const std::string where = path.string();
  const Hdf5File hdf5 = Hdf5File::open(path);
  check_format(hdf5);
  const File file = File::open_read(path);
  OpenedCheckpoint opened;
  opened.state = hdf5.read_text("/state");
  parse_state(opened.state, where);
  opened.side_files.config = hdf5.read_text("/config");
  for (const std::string& name : hdf5.list("/tokenizer"))
    opened.side_files.tokenizer[name] = hdf5.read_bytes("/tokenizer/" + name);
  if (hdf5.contains("/frozen")) opened.frozen = hdf5.read_text("/frozen");
  opened.index = read_index(hdf5, file);
  check_optimizer(opened.index, where);
  for (const CheckpointGroup group : kAllCheckpointGroups) {
    const auto& tensors = opened.index.groups[index_of(group)];
    std::int64_t blocks = 0;
    for (const StoredTensor& tensor : tensors) blocks += block_count(tensor.info);
    if (!tensors.empty()) append_checksums(hdf5, file, checksums_path_of(group), blocks, opened.checksums);
  }
  std::vector<std::uint64_t> digest;
  append_checksums(hdf5, file, "/checksums/digest", 1, digest);
  opened.digest = digest[0];
  if (opened.digest != xxh3(std::as_bytes(std::span(opened.checksums)))) {
    throw_user_error("{}: its checksums do not hash to /checksums/digest: the file is damaged or was changed",
                     where);
  }
  return opened;
}

namespace {

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::string pack(const OpenedCheckpoint& opened) {
  PackedTexts packed;
  for (const std::string* text : {&opened.state, &opened.frozen, &opened.side_files.config})
    packed.add(*text);
  packed.add(text_of(encode_index(opened.index)));
  packed.add(text_of(std::as_bytes(std::span(opened.checksums))));
  packed.add(text_of(std::as_bytes(std::span(&opened.digest, 1))));
  for (const auto& [name, content] : opened.side_files.tokenizer) {
    packed.add(name);
    packed.add(content);
  }
  return packed.take();
}

OpenedCheckpoint unpack(std::string_view packed, const std::string& origin) {
  OpenedCheckpoint opened;
  UnpackedTexts texts(packed);
  opened.state = texts.next();
  opened.frozen = texts.next();
  opened.side_files.config = texts.next();
  opened.index = parse_index(std::as_bytes(std::span(texts.next())), origin);
  const std::string_view checksums = texts.next(), digest = texts.next();
  opened.checksums.resize(checksums.size() / sizeof(std::uint64_t));
  if (!checksums.empty()) std::memcpy(opened.checksums.data(), checksums.data(), checksums.size());
  std::memcpy(&opened.digest, digest.data(), sizeof opened.digest);
  while (!texts.at_end()) {
    const std::string name(texts.next());
    opened.side_files.tokenizer[name] = texts.next();
  }
  return opened;
}

}  // namespace verne
