#pragma once
#include <filesystem>
#include <memory>
#include <vector>

#include "verne/checkpoint/format.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/io/tensor_part.hpp"

namespace verne {

/// Opens a checkpoint and verifies its structure: format version, every tensor's storage within the file, a
/// checksum for every block. UserError naming the file and what is wrong with it. Tensors are read with
/// pread; load_parts (verne/io/load.hpp) restores them, whatever layout wrote them.
class CheckpointReader {
 public:
  explicit CheckpointReader(const std::filesystem::path& path);
  /// Collective: rank 0 opens the file with HDF5 and tells the others what is in it. All throw where one
  /// fails.
  CheckpointReader(const std::filesystem::path& path, const HostGroup& group);
  ~CheckpointReader();
  CheckpointReader(CheckpointReader&&) noexcept;

  const std::filesystem::path& path() const;
  const CheckpointState& state() const;
  const SideFiles& side_files() const;
  const std::vector<FrozenTensor>& frozen() const;
  bool has_optimizer() const;
  std::uint64_t digest() const;

  /// The tensors of a group, in byte order of their names; no tensors where the checkpoint lacks the group.
  /// `read_block` verifies what it reads: UserError naming file, tensor and block where a checksum differs.
  /// Lives as long as the reader.
  const TensorSource& tensors(CheckpointGroup group) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Reads and verifies every block of every group, and that /index says what HDF5 does. Throws UserError at
/// the first that is wrong. Local.
void verify_checkpoint(const CheckpointReader& reader);

/// What a checkpoint holds, from the root of its file alone: cheap however many tensors there are. UserError
/// where the file is no whole checkpoint.
enum class CheckpointKind { resumable, weights_only };
CheckpointKind checkpoint_kind(const std::filesystem::path& path);

/// True where the file is a Verne checkpoint, by its `format` attribute.
bool is_checkpoint(const std::filesystem::path& path);

}  // namespace verne
