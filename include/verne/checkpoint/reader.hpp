#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "verne/checkpoint/format.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/io/tensor_part.hpp"
#include "verne/tensor/queue.hpp"

namespace verne {

/// Opens a checkpoint and verifies its structure: format version, every tensor's storage within the file, a
/// checksum for every block. Tensor data is read with pread. Throws UserError naming the file and what is
/// wrong with it.
class CheckpointReader {
 public:
  explicit CheckpointReader(const std::filesystem::path& path);
  ~CheckpointReader();
  CheckpointReader(CheckpointReader&&) noexcept;

  const std::filesystem::path& path() const;
  const CheckpointState& state() const;
  const SideFiles& side_files() const;
  const std::vector<FrozenTensor>& frozen() const;
  bool has_optimizer() const;
  std::uint64_t digest() const;

  /// The tensors of a group, in byte order of their names; no tensors where the checkpoint lacks the group.
  /// Lives as long as the reader.
  const TensorSource& tensors(CheckpointGroup group) const;
  /// One checksum a block.
  std::span<const std::uint64_t> checksums(CheckpointGroup group, const TensorInfo& tensor) const;

  /// Reads one block of kBlockBytes (the last may be shorter) and verifies it. Throws UserError naming file,
  /// tensor and block where the checksum differs.
  void read_block(CheckpointGroup group, const TensorInfo& tensor, std::int64_t block,
                  std::span<std::byte> to) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Collective. Fills the ranks' parts from a group of a checkpoint, whatever layout wrote it: each block is
/// read and verified once, then sent to the ranks that hold some of it. Every part's name and shape must be
/// in the group (UserError otherwise); dtypes are converted.
void restore_parts(const CheckpointReader& reader, CheckpointGroup from, const HostGroup& group, Queue& queue,
                   std::vector<TensorPart>& parts);

/// Reads and verifies every block of every group. Throws UserError at the first that is wrong. Local.
void verify_checkpoint(const CheckpointReader& reader);

/// True where the file is a Verne checkpoint, by its `format` attribute.
bool is_checkpoint(const std::filesystem::path& path);

}  // namespace verne
