#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace verne {

/// An open file. Failures that another path would cure (absent, no permission, a folder) are UserErrors,
/// others (disk full, input/output errors) SystemErrors; both name the path. Reads and writes at offsets may
/// come from several threads.
class File {
 public:
  /// An existing file, to be read.
  static File open_read(const std::filesystem::path& path);
  /// A new or emptied file, to be read and written.
  static File create(const std::filesystem::path& path);
  /// An existing file, to be read and written, content kept.
  static File open_write(const std::filesystem::path& path);

  File() = default;
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;

  bool is_open() const { return descriptor_ >= 0; }
  int descriptor() const { return descriptor_; }
  const std::filesystem::path& path() const { return path_; }
  std::int64_t size() const;

  /// Fills `to` from byte `offset`. UserError where the file ends before.
  void read_at(std::int64_t offset, std::span<std::byte> to) const;
  /// Writes all of `from` at byte `offset`.
  void write_at(std::int64_t offset, std::span<const std::byte> from) const;
  /// Makes the file at least `bytes` long with its space set aside, so that a full disk is known now.
  void reserve(std::int64_t bytes) const;
  /// The content reaches the device.
  void sync() const;
  /// Closes and reports what closing finds; the destructor ignores it.
  void close();

 private:
  friend class AtomicFile;
  friend class AtomicDirectory;
  File(int descriptor, std::filesystem::path path) : descriptor_(descriptor), path_(std::move(path)) {}
  int descriptor_ = -1;
  std::filesystem::path path_;
};

/// A failed operation on a path, with the text of errno: UserError or SystemError as `File` says.
[[noreturn]] void throw_file_error(std::string_view action, const std::filesystem::path& path,
                                   int error_number);

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

/// A file's content in memory, read-only. At least kPaddingBytes zero bytes after its end may be read too.
class MappedFile {
 public:
  static constexpr std::int64_t kPaddingBytes = 4096;

  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const std::filesystem::path& path() const { return path_; }
  std::int64_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, static_cast<std::size_t>(size_)}; }
  std::string_view text() const {
    return {reinterpret_cast<const char*>(data_), static_cast<std::size_t>(size_)};
  }

 private:
  std::filesystem::path path_;
  std::byte* data_ = nullptr;
  std::int64_t size_ = 0, mapped_ = 0;
};

}  // namespace verne
