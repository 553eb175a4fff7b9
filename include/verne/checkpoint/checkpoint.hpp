#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "verne/comm/host_group.hpp"
#include "verne/io/tensor_part.hpp"
#include "verne/tensor/queue.hpp"

namespace verne {

// A checkpoint is one HDF5 file without a layout: whole logical tensors under their Hugging Face names.
//   /model/<name>                                    as the tensor's dtype says
//   /optimizer/{master,exp_avg,exp_avg_sq}/<name>    trainable tensors; absent in weights-only checkpoints
//   /checksums/model, /checksums/optimizer/<group>   u64: XXH3 of each block of kBlockBytes of each tensor's row-major
//                                                    bytes, tensors in byte order of their names
//   /checksums/digest                                u64 [1]: XXH3 of all checksums, groups in the order given above
//   /state, /config, /frozen                         JSON texts; /frozen only where there are frozen tensors
//   /tokenizer/<file>                                u8
// and the attributes of "/": format ("verne checkpoint"), format_version.

inline constexpr std::int64_t kCheckpointFormatVersion = 1;
inline constexpr std::int64_t kBlockBytes = std::int64_t{16} << 20;

/// What a run needs to go on besides tensors: step, consumed_samples, consumed_tokens, seeds, the keys that identify the
/// run, chosen matmul algorithms, the monitor's value... The keys are the trainer's; `step` is read here too.
struct CheckpointState {
  nlohmann::ordered_json values = nlohmann::ordered_json::object();

  /// 0 where there is none (an imported model).
  std::int64_t step() const;
};

/// Files that travel with a model.
struct SideFiles {
  std::string config;                            ///< config.json, as it was
  std::map<std::string, std::string> tokenizer;  ///< tokenizer and generation files: name → content
};

/// A tensor that was not trained and is not stored: where it came from and what it must hash to (its block checksums'
/// XXH3).
struct FrozenTensor {
  std::string name;
  std::uint64_t checksum = 0;
  std::string source;
};

/// What a checkpoint is made of. Parts carry the logical tensors' names; optimizer parts are all empty for a weights-only
/// checkpoint. Every rank gives the parts that it holds, in the same order; state, side files and frozen tensors count
/// on rank 0.
struct CheckpointContent {
  std::vector<TensorPart> model, master, exp_avg, exp_avg_sq;
  CheckpointState state;
  SideFiles side_files;
  std::vector<FrozenTensor> frozen;
};

/// Collective. Writes `path` by all ranks in parallel: laid out, reserved on the disk, written through parallel HDF5,
/// synced, renamed into place. On an error (a full disk among them) every rank throws the same SystemError, and nothing
/// is left under the final name.
void save_checkpoint(const std::filesystem::path& path, const HostGroup& group, Queue& queue,
                     const CheckpointContent& content);

/// Saves without holding up the run: `start` copies what this rank will write to host memory (ranks exchange shards, so it
/// holds a share of the file) and lays the file out; a thread of its own, which calls neither HDF5 nor MPI, checksums and
/// writes it; `finish` publishes. At most one save is in flight.
class AsyncSaver {
 public:
  AsyncSaver();
  ~AsyncSaver();  ///< waits for the thread; what was not finished is not published
  AsyncSaver(const AsyncSaver&) = delete;
  AsyncSaver& operator=(const AsyncSaver&) = delete;

  /// Collective. Throws InternalError where a save is in flight.
  void start(const std::filesystem::path& path, const HostGroup& group, Queue& queue, const CheckpointContent& content);
  bool in_flight() const;
  /// True once this rank's thread has written all: `finish` will not wait for this rank. Local.
  bool written() const;
  /// Collective. Waits for the threads, publishes and returns the path; throws as save_checkpoint does. Nothing in flight:
  /// InternalError.
  std::filesystem::path finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

enum class CheckpointGroup { model, master, exp_avg, exp_avg_sq };
inline constexpr int kCheckpointGroups = 4;
/// "/model", "/optimizer/master", ...
std::string_view path_of(CheckpointGroup group);

/// Opens a checkpoint and verifies its structure: format version, every tensor's storage within the file, a checksum for
/// every block. Tensor data is read with pread. Throws UserError naming the file and what is wrong with it.
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

  /// The tensors of a group, in byte order of their names; no tensors where the checkpoint lacks the group. Lives as long
  /// as the reader.
  const TensorSource& tensors(CheckpointGroup group) const;
  /// One checksum a block.
  std::span<const std::uint64_t> checksums(CheckpointGroup group, const TensorInfo& tensor) const;

  /// Reads one block of kBlockBytes (the last may be shorter) and verifies it. Throws UserError naming file, tensor and
  /// block where the checksum differs.
  void read_block(CheckpointGroup group, const TensorInfo& tensor, std::int64_t block, std::span<std::byte> to) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Collective. Fills the ranks' parts from a group of a checkpoint, whatever layout wrote it: each block is read and
/// verified once, then sent to the ranks that hold some of it. Every part's name and shape must be in the group
/// (UserError otherwise); dtypes are converted.
void restore_parts(const CheckpointReader& reader, CheckpointGroup from, const HostGroup& group, Queue& queue,
                   std::vector<TensorPart>& parts);

/// Reads and verifies every block of every group. Throws UserError at the first that is wrong. Local.
void verify_checkpoint(const CheckpointReader& reader);

/// True where the file is a Verne checkpoint, by its `format` attribute.
bool is_checkpoint(const std::filesystem::path& path);

}  // namespace verne
