#include "draft.hpp"

#include <optional>

#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/hdf5.hpp"
#include "verne/io/json.hpp"

namespace verne {
namespace {

std::size_t at(CheckpointGroup group) {
  return static_cast<std::size_t>(group);
}

}  // namespace

Draft::Draft(const std::filesystem::path& path, const HostGroup& group, const DraftContent& content)
    : group_(group) {
  for (const auto& tensors : content.tensors) {
    index_.emplace_back(tensors);
    checksums_.emplace_back(static_cast<std::size_t>(index_.back().blocks), 0);
    offsets_.emplace_back(tensors.size(), -1);
  }
  agree_after(group, [&] {
    if (group.rank() == 0) lay_out(path, content);
  });
  temporary_ = group.broadcast_text(aside_ ? aside_->temporary().string() : "", 0);
  for (auto& offsets : offsets_) group.broadcast(std::as_writable_bytes(std::span(offsets)), 0);
}

std::size_t Draft::position(CheckpointGroup group, const TensorInfo& tensor) const {
  return index_[at(group)].position.at(tensor.name);
}

std::int64_t Draft::file_offset(CheckpointGroup group, const TensorInfo& tensor, std::int64_t block) const {
  return offsets_[at(group)][position(group, tensor)] + block * kBlockBytes;
}

std::uint64_t& Draft::checksum(CheckpointGroup group, const TensorInfo& tensor, std::int64_t block) {
  const std::int64_t first = index_[at(group)].first[position(group, tensor)];
  return checksums_[at(group)][static_cast<std::size_t>(first + block)];
}

void Draft::write_shared(const std::function<void(const WriteBlock&)>& body) {
  {
    std::optional<Hdf5File> file;
    agree_after(group_, [&] { file = Hdf5File::open_shared(temporary_, group_); });
    // All ranks open the same datasets in the same order, whichever they will write: HDF5's metadata caches
    // must see the same calls on every rank.
    std::vector<std::vector<Hdf5Dataset>> datasets(index_.size());
    agree_after(group_, [&] {
      for (const CheckpointGroup group : kAllCheckpointGroups) {
        for (const TensorInfo& tensor : index_[at(group)].tensors) {
          datasets[at(group)].push_back(file->dataset(std::string(path_of(group)) + "/" + tensor.name));
        }
      }
    });
    body([&](CheckpointGroup group, const TensorInfo& tensor, std::int64_t block,
             std::span<const std::byte> bytes) {
      const Hdf5Dataset& dataset = datasets[at(group)][position(group, tensor)];
      dataset.write(block * kBlockBytes / size_bytes(dataset.type()), bytes);
      checksum(group, tensor, block) = xxh3(bytes);
    });
    datasets.clear();
    agree_after(group_, [&] { file->close(); });
  }
  agree_after(group_, [&] { File::open_write(temporary_).sync(); });
}

void Draft::publish() {
  std::vector<std::uint64_t> all;
  for (auto& checksums : checksums_) {
    // Each checksum is zero on all ranks but the one that wrote the block.
    std::vector<std::int64_t> sums(checksums.begin(), checksums.end());
    group_.sum(std::span(sums));
    checksums.assign(sums.begin(), sums.end());
    all.insert(all.end(), checksums.begin(), checksums.end());
  }
  agree_after(group_, [&] {
    if (group_.rank() != 0) return;
    for (const CheckpointGroup group : kAllCheckpointGroups) {
      const auto& checksums = checksums_[at(group)];
      if (!checksums.empty())
        aside_->file().write_at(checksums_at_[at(group)], std::as_bytes(std::span(checksums)));
    }
    const std::uint64_t digest = xxh3(std::as_bytes(std::span(all)));
    aside_->file().write_at(digest_at_, std::as_bytes(std::span(&digest, 1)));
    aside_->publish();
    aside_.reset();
  });
}

void Draft::lay_out(const std::filesystem::path& path, const DraftContent& content) {
  aside_ = std::make_unique<AtomicFile>(path);
  std::int64_t expected_bytes = 1 << 20;
  for (const auto& [name, bytes] : content.side_files.tokenizer)
    expected_bytes += static_cast<std::int64_t>(bytes.size());
  for (const ChecksumIndex& index : index_) {
    for (const TensorInfo& tensor : index.tensors) expected_bytes += tensor.bytes() + 1024;
  }
  Hdf5File file = Hdf5File::create(aside_->temporary(), expected_bytes);
  file.write_attribute("/", "format", kCheckpointFormat);
  file.write_attribute("/", "format_version", kCheckpointFormatVersion);
  file.write_text("/state", content.state.values.dump(2, ' ', false, Json::error_handler_t::replace));
  file.write_text("/config", content.side_files.config);
  file.create_group("/tokenizer");
  for (const auto& [name, bytes] : content.side_files.tokenizer)
    file.write_bytes("/tokenizer/" + name, bytes);
  if (!content.frozen.empty()) {
    Json frozen = Json::array();
    for (const FrozenTensor& tensor : content.frozen) {
      frozen.push_back({{"name", tensor.name}, {"checksum", tensor.checksum}, {"source", tensor.source}});
    }
    file.write_text("/frozen", frozen.dump(1));
  }
  for (const CheckpointGroup group : kAllCheckpointGroups) {
    const ChecksumIndex& index = index_[at(group)];
    if (index.tensors.empty()) continue;
    for (std::size_t i = 0; i < index.tensors.size(); ++i) {
      const TensorInfo& tensor = index.tensors[i];
      require(tensor.name.find('/') == std::string::npos, "tensor name {} holds a slash", tensor.name);
      offsets_[at(group)][i] = file.create_dataset(std::string(path_of(group)) + "/" + tensor.name,
                                                   hdf5_type(tensor.dtype), tensor.shape.extents())
                                   .file_offset();
    }
    checksums_at_[at(group)] =
        file.create_dataset(checksums_path_of(group), Hdf5Type::u64, std::array{index.blocks}).file_offset();
  }
  digest_at_ =
      file.create_dataset("/checksums/digest", Hdf5Type::u64, std::array{std::int64_t{1}}).file_offset();
  file.close();
  aside_->file().reserve(aside_->file().size());
}

}  // namespace verne
