#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "verne/checkpoint/format.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/io/file.hpp"

namespace verne {

/// What a file will hold; tensors by group, the same on all ranks, the rest on rank 0.
struct DraftContent {
  std::array<std::vector<TensorInfo>, kCheckpointGroups> tensors;
  CheckpointState state;
  SideFiles side_files;
  std::vector<FrozenTensor> frozen;
};

/// A checkpoint being written beside its final name: where each block goes, and the checksums as they come.
/// Destroyed without `publish`, it leaves nothing.
class Draft {
 public:
  /// Collective. Lays the file out and reserves its space.
  Draft(const std::filesystem::path& path, const HostGroup& group, const DraftContent& content);

  const std::filesystem::path& temporary() const { return temporary_; }
  std::int64_t file_offset(CheckpointGroup group, const TensorInfo& tensor, std::int64_t block) const;
  /// To be set by the one rank that writes the block.
  std::uint64_t& checksum(CheckpointGroup group, const TensorInfo& tensor, std::int64_t block);

  using WriteBlock =
      std::function<void(CheckpointGroup, const TensorInfo&, std::int64_t block, std::span<const std::byte>)>;
  /// Collective. Opens the file through parallel HDF5 on all ranks, lets `body` (which may be collective)
  /// write blocks and sets their checksums, closes and syncs.
  void write_shared(const std::function<void(const WriteBlock&)>& body);

  /// Collective. All ranks have written and synced: adds the checksums and gives the file its name.
  void publish();

 private:
  std::size_t position(CheckpointGroup group, const TensorInfo& tensor) const;
  void lay_out(const std::filesystem::path& path, const DraftContent& content);

  const HostGroup& group_;
  std::unique_ptr<AtomicFile> aside_;  ///< on rank 0
  std::filesystem::path temporary_;
  std::vector<ChecksumIndex> index_;                // each by group
  std::vector<std::vector<std::int64_t>> offsets_;  // bytes in the file
  std::vector<std::vector<std::uint64_t>> checksums_;
  std::array<std::int64_t, kCheckpointGroups> checksums_at_{};
  std::int64_t digest_at_ = 0;
};

}  // namespace verne
