#pragma once
#include <filesystem>
#include <memory>
#include <vector>

#include "verne/checkpoint/format.hpp"
#include "verne/checkpoint/reader.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/io/tensor_part.hpp"
#include "verne/tensor/queue.hpp"

namespace verne {

/// What a checkpoint is made of. Parts carry the logical tensors' names; optimizer parts are all empty for a
/// weights-only checkpoint. Every rank gives the parts that it holds, in the same order; state, side files
/// and frozen tensors count on rank 0.
struct CheckpointContent {
  std::vector<TensorPart> model, master, exp_avg, exp_avg_sq;
  CheckpointState state;
  SideFiles side_files;
  std::vector<FrozenTensor> frozen;
};

/// Collective. Writes `path` by all ranks in parallel: laid out, reserved on the disk, written through
/// parallel HDF5, synced, renamed into place. On an error (a full disk among them) every rank throws the same
/// SystemError, and nothing is left under the final name.
void save_checkpoint(const std::filesystem::path& path, const HostGroup& group, Queue& queue,
                     const CheckpointContent& content);

/// Saves without holding up the run: `start` copies what this rank will write to host memory (ranks exchange
/// shards, so it holds a share of the file) and lays the file out; a thread of its own, which calls neither
/// HDF5 nor MPI, checksums and writes it; `finish` publishes. At most one save is in flight.
class AsyncSaver {
 public:
  AsyncSaver();
  ~AsyncSaver();  ///< waits for the thread; what was not finished is not published
  AsyncSaver(const AsyncSaver&) = delete;
  AsyncSaver& operator=(const AsyncSaver&) = delete;

  /// Collective. Throws InternalError where a save is in flight. `group` must live until `finish`.
  void start(const std::filesystem::path& path, const HostGroup& group, Queue& queue,
             const CheckpointContent& content);
  bool in_flight() const;
  /// True once this rank's thread has written all: `finish` will not wait for this rank. Local.
  bool written() const;
  /// Collective. Waits for the threads, publishes and returns the path; throws as save_checkpoint does.
  /// Nothing in flight: InternalError.
  std::filesystem::path finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace verne
