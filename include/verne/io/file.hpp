#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "verne/io/mapped_file.hpp"
#include "verne/io/open_file.hpp"

namespace verne {

inline constexpr std::int64_t kMaxTextBytes = std::int64_t{1} << 30;
/// A whole file as it stands. UserError where it cannot be read or is longer than `max_bytes`.
std::string read_whole_text(const std::filesystem::path& path, std::int64_t max_bytes = kMaxTextBytes);
/// A file's entry in its folder (its creation, its new name) reaches the device.
void sync_directory(const std::filesystem::path& directory);
/// Makes a folder and its parents. UserError where that is refused.
void make_directories(const std::filesystem::path& directory);

/// A file that appears under its final name whole or not at all: it is written aside in the same folder
/// (parents are made) and `publish` syncs it and renames it over the final name. Without `publish` nothing
/// stays. Files aside whose writer was killed are removed by the next AtomicFile of the same name. Where the
/// final name is an existing device or pipe, content goes straight to it.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  const File& file() const { return file_; }
  /// Where the content is being written; other processes and libraries may open and write it too.
  const std::filesystem::path& temporary() const { return temporary_; }
  const std::filesystem::path& path() const { return path_; }
  /// Appends.
  void write(std::string_view text);
  void publish();

 private:
  std::filesystem::path path_, temporary_;
  File file_;
  std::int64_t written_ = 0;
  enum class State { open, published, direct } state_ = State::open;
};

/// Writes `text` through an AtomicFile.
void write_file_atomically(const std::filesystem::path& path, std::string_view text);

/// A folder that appears under its final name whole or not at all: its content is made in `temporary()`,
/// beside it, and `publish` syncs every file and renames. An older folder is replaced in one step and then
/// removed; one that is not empty and holds no file named `marker` is somebody else's and is refused with a
/// UserError, at construction.
class AtomicDirectory {
 public:
  AtomicDirectory(const std::filesystem::path& path, const std::string& marker);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  const std::filesystem::path& temporary() const { return temporary_; }
  const std::filesystem::path& path() const { return path_; }
  void publish();

 private:
  std::filesystem::path path_, temporary_;
  std::string marker_;
  File lock_;
  bool published_ = false;
};

/// Whether `relative` (from an untrusted file) names something inside `folder`: a relative path without "..",
/// and, with symbolic links followed, not outside.
bool is_inside(const std::filesystem::path& folder, const std::filesystem::path& relative);

}  // namespace verne
