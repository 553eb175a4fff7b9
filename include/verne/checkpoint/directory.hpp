#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "verne/checkpoint/reader.hpp"
#include "verne/comm/host_group.hpp"

namespace verne {

/// "step_00000100.h5"
std::string checkpoint_name(std::int64_t step);
/// The step of such a name; no value for other names.
std::optional<std::int64_t> step_of_checkpoint_name(std::string_view name);

/// The `checkpoints` folder of a run: step_########.h5 files and the links `last` (the newest resumable one)
/// and `best`. Links are replaced atomically and only ever point at whole files. One process (rank 0) changes
/// the folder. A resumable checkpoint and a weights-only one of the same step share a name, and the resumable
/// one serves for both.
class CheckpointDirectory {
 public:
  explicit CheckpointDirectory(std::filesystem::path path) : path_(std::move(path)) {}

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path file(std::int64_t step) const { return path_ / checkpoint_name(step); }

  /// Makes the folder and removes what a killed save left behind. Throws SystemError.
  void prepare() const;

  struct Entry {
    std::int64_t step = 0;
    std::filesystem::path file;
    CheckpointKind kind = CheckpointKind::weights_only;
  };
  /// What this process saved there, and so need not look into again.
  void note(std::int64_t step, CheckpointKind kind) { known_[step] = kind; }
  /// Checkpoints by step; the roots of those that are not known yet are looked at. Those that do not open are
  /// left out with a warning.
  std::vector<Entry> whole();
  /// The newest resumable one whose structure is whole.
  std::optional<Entry> newest_resumable() const;

  /// Points `last` or `best` at a step's file, which must be there.
  void set_last(std::int64_t step) const { link("last", step); }
  void set_best(std::int64_t step) const { link("best", step); }
  std::optional<std::int64_t> last() const { return linked("last"); }
  std::optional<std::int64_t> best() const { return linked("best"); }

  struct Retention {
    int keep = 1;       ///< resumable checkpoints, the newest ones; 0 keeps all
    int keep_best = 0;  ///< weights-only ones
    /// Steps of weights-only checkpoints, best first; those past keep_best go.
    std::vector<std::int64_t> ranking;
    std::optional<std::int64_t> resumed_from;
  };
  /// Removes checkpoints beyond the counts, never what `last` or `best` point at nor the one resumed from.
  /// Steps removed, ascending.
  std::vector<std::int64_t> prune(const Retention& retention);

 private:
  void link(const std::string& name, std::int64_t step) const;
  std::optional<std::int64_t> linked(const std::string& name) const;
  std::filesystem::path path_;
  std::map<std::int64_t, CheckpointKind> known_;  ///< by step
};

/// A checkpoint that a user named: a checkpoint file, `RUN@best`, `RUN@last`, `RUN@STEP`, or a run's folder
/// alone (its best, else its last). `chosen` says which in words where it was not a file.
struct ResolvedCheckpoint {
  std::filesystem::path file;
  std::string chosen;
};
/// Throws UserError saying what the run has.
ResolvedCheckpoint resolve_checkpoint(const std::string& text);
/// What rank 0 finds: a run that trains meanwhile moves its links. Collective.
ResolvedCheckpoint resolve_checkpoint(const std::string& text, const HostGroup& group);
/// Whether the text can only mean a checkpoint: a file that is one, a run, or RUN@....
bool names_checkpoint(const std::string& text);

}  // namespace verne
