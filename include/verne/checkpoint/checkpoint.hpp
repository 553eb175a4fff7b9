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

class SavePlan;

/// One group of a checkpoint.
struct GroupContent {
  /// The logical tensors as they will be stored, the same on every rank; in any order.
  std::vector<TensorInfo> tensors;
  /// What this rank owns of them: over all ranks every element of every tensor is given exactly once.
  std::vector<TensorPart> parts;
};

/// What a checkpoint is made of. The optimizer's groups are all empty in a weights-only one. State, side
/// files and frozen tensors count on rank 0.
struct CheckpointContent {
  GroupContent model, master, exp_avg, exp_avg_sq;
  CheckpointState state;
  SideFiles side_files;
  std::vector<FrozenTensor> frozen;

  const GroupContent& group(CheckpointGroup group) const;
};

/// Saves checkpoints: rank 0 lays the file out and sets its space aside, every rank writes what it owns at
/// its place, blocks that several ranks wrote are read back for their checksums, each by one; then the file
/// is synced and renamed into place. What does not change from save to save (the layout, who hashes what) is
/// kept.
///
/// An element that no rank gives, or two do, is an InternalError on every rank, found before anything is
/// written. Where one rank fails (a full disk above all) every rank throws the same SystemError, and nothing
/// is left under the final name nor beside it.
class CheckpointSaver {
 public:
  /// The group, and every queue that content lies on, must outlive this.
  explicit CheckpointSaver(const HostGroup& group);
  /// Waits for the thread; what was not finished is not published.
  ~CheckpointSaver();
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  /// Collective. Writes and publishes `path`.
  void save(const std::filesystem::path& path, Queue& queue, const CheckpointContent& content);

  /// Collective. Begins a save that does not hold up the run: copies what this rank owns to host memory,
  /// which is kept for the next save (staging_bytes), and leaves the rest to a thread that calls neither HDF5
  /// nor MPI nor the queue. At most one save is in flight: InternalError.
  void start(const std::filesystem::path& path, Queue& queue, const CheckpointContent& content);
  bool in_flight() const;

  /// The thread works in stages, and a later stage needs an earlier one of all ranks. `stage` is how many
  /// this rank has done; local, and cheap. The ranks agree on the least of them now and then (it may travel
  /// with other values of a step) and tell `advance`, which begins the next stage and does not wait. True
  /// once all are done: `finish` will not wait for any rank.
  int stage() const;
  bool advance(int least_stage);
  /// Collective: the two together.
  bool poll();

  /// Collective. Waits for what is left, publishes and returns the path; throws as `save` does. Nothing in
  /// flight: InternalError.
  std::filesystem::path finish();

  /// Host memory of this rank's that `start` has taken so far.
  std::int64_t staging_bytes() const;

 private:
  class Work;
  void plan(const std::filesystem::path& path, const CheckpointContent& content);
  std::span<std::byte> staging(Queue& queue, std::int64_t bytes);
  void publish(Work& work);

  const HostGroup& group_;
  /// Of resumable checkpoints, and of weights alone; `current_` is that of the last save.
  std::unique_ptr<SavePlan> whole_, weights_;
  SavePlan* current_ = nullptr;
  HostBuffer staging_;
  std::unique_ptr<Work> work_;
};

}  // namespace verne
