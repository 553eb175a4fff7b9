#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "progress_board.hpp"
#include "progress_marks.hpp"

namespace verne {

/// What an operation is, for the report on one that hangs. The texts that it points to are literals.
struct OperationNote {
  const char* operation = "?";
  std::string peers;           ///< of an exchange: "to rank 2, from rank 1"
  const char* file = nullptr;  ///< where a host call was made
  std::int64_t line = 0;
};

/// Operations that are numbered together: those of one communicator on one queue, or the calls of one host
/// group. One thread begins and ends them; the watchdog's reads.
class ProgressTrack {
 public:
  /// `subject` is what they are called on: "communicator data". `members` are the world ranks whose tracks of
  /// the same key number the same operations; none where numbers differ from rank to rank (exchanges).
  /// `remembered`: so many may have begun before the first one ends and still be named. Numbers go on from
  /// `previous`.
  ProgressTrack(std::string subject, std::vector<std::int64_t> members, std::uint64_t key,
                std::unique_ptr<ProgressMarks> marks, std::size_t remembered, std::int64_t previous = 0);

  /// The number of an operation that is enqueued now.
  std::int64_t begin(OperationNote note);
  /// Operation `number` is over as soon as the queue gets here. Those that end before an earlier one wait for
  /// it: `done` counts operations without a gap.
  void end(std::int64_t number);

  const std::string& subject() const { return subject_; }
  const std::vector<std::int64_t>& members() const { return members_; }
  std::uint64_t key() const { return key_; }
  const ProgressMarks& marks() const { return *marks_; }
  OperationNote note(std::int64_t number) const;

 private:
  std::string subject_;
  std::vector<std::int64_t> members_;
  std::uint64_t key_;
  std::unique_ptr<ProgressMarks> marks_;
  std::int64_t last_, done_;
  std::vector<std::int64_t> open_;  ///< begun and not ended, ascending
  mutable std::mutex mutex_;        ///< guards notes_
  std::vector<OperationNote> notes_;
};

/// The marks that a queue of this kind can write.
std::unique_ptr<ProgressMarks> make_marks(Queue& queue);

}  // namespace verne
