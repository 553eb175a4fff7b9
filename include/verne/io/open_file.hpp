#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>

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
  /// These bytes will be read soon: the device may begin, and nobody waits. A hint.
  void will_read(std::int64_t offset, std::int64_t bytes) const;
  /// Writes all of `from` at byte `offset`.
  void write_at(std::int64_t offset, std::span<const std::byte> from) const;
  /// Makes the file at least `bytes` long with its space set aside, so that a full disk is known now.
  void reserve(std::int64_t bytes) const;
  /// What was written there sets off for the device, and nobody waits: `sync` then has less to do. A hint.
  void begin_sync(std::int64_t offset, std::int64_t bytes) const;
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

}  // namespace verne
