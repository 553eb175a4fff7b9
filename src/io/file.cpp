#include "verne/io/file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <system_error>

#include "verne/base/error.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;

int open_descriptor(std::string_view action, const fs::path& path, int flags) {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  } while (descriptor < 0 && errno == EINTR);
  if (descriptor < 0) throw_file_error(action, path, errno);
  return descriptor;
}

/// Advisory lock that marks a file aside as being written; released when its process ends. Not flock, which
/// HDF5 takes on the same file.
bool lock_file(int descriptor) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return ::fcntl(descriptor, F_OFD_SETLK, &lock) == 0;
}

std::string aside_prefix(const fs::path& path) {
  return fmt::format(".{}.", path.filename().string());
}
constexpr std::string_view kAsideSuffix = ".partial";

fs::path aside_name(const fs::path& path) {
  static std::atomic<std::uint32_t> counter{0};
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const auto stamp =
      static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
  return path.parent_path() /
         fmt::format("{}{:x}-{}-{}{}", aside_prefix(path), stamp, ::getpid(), counter++, kAsideSuffix);
}

/// Removes what writers of `path` that were killed have left: whatever aside nobody holds a lock on.
void remove_stale_asides(const fs::path& path) {
  std::error_code error;
  const std::string prefix = aside_prefix(path);
  for (fs::directory_iterator it(path.parent_path(), error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with(prefix) || !name.ends_with(kAsideSuffix)) continue;
    const std::string_view middle(name.data() + prefix.size(),
                                  name.size() - prefix.size() - kAsideSuffix.size());
    if (middle.empty() || middle.find_first_not_of("0123456789abcdef-") != std::string_view::npos) continue;
    std::error_code ignored;
    const bool directory = it->is_directory(ignored) && !it->is_symlink(ignored);
    if (!directory && !it->is_regular_file(ignored)) continue;
    const int descriptor =
        ::open(it->path().c_str(), (directory ? O_RDONLY | O_DIRECTORY : O_RDWR) | O_CLOEXEC | O_NOFOLLOW);
    if (descriptor < 0) continue;
    const bool abandoned = directory ? ::flock(descriptor, LOCK_EX | LOCK_NB) == 0 : lock_file(descriptor);
    if (abandoned) fs::remove_all(it->path(), ignored);
    ::close(descriptor);
  }
}

/// The path that a symbolic link stands for, so that the link stays and its target is replaced; made
/// absolute.
fs::path final_path(const fs::path& path) {
  std::error_code error;
  fs::path resolved =
      fs::is_symlink(path, error) ? fs::weakly_canonical(path, error) : fs::absolute(path, error);
  if (error || resolved.empty()) throw_file_error("used", path, error ? error.value() : ENOENT);
  resolved = resolved.lexically_normal();
  if (resolved.filename().empty()) resolved = resolved.parent_path();
  require_user(!resolved.filename().empty(), "{}: not a name for an output", path.string());
  return resolved;
}

}  // namespace

// --- Whole files and folders ---

std::string read_whole_text(const fs::path& path, std::int64_t max_bytes) {
  const File file = File::open_read(path);
  std::string text;
  // By reading, not by size: pipes and /proc have none.
  constexpr std::size_t kStep = std::size_t{1} << 20;
  std::size_t capacity = static_cast<std::size_t>(std::clamp<std::int64_t>(file.size(), 0, max_bytes)) + 1;
  for (std::size_t length = 0;;) {
    text.resize(std::max(capacity, length + 1));
    const ssize_t got = ::read(file.descriptor(), text.data() + length, text.size() - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_file_error("read", path, errno);
    length += static_cast<std::size_t>(got);
    require_user(static_cast<std::int64_t>(length) <= max_bytes,
                 "{}: longer than the {} bytes that are accepted here", path.string(), max_bytes);
    if (got == 0) {
      text.resize(length);
      return text;
    }
    if (length == text.size()) capacity = length + kStep;
  }
}

void sync_directory(const fs::path& directory) {
  const int descriptor =
      open_descriptor("synced", directory.empty() ? fs::path(".") : directory, O_RDONLY | O_DIRECTORY);
  const int error = ::fsync(descriptor) == 0 ? 0 : errno;
  ::close(descriptor);
  if (error != 0 && error != EINVAL && error != ENOTSUP) throw_file_error("synced", directory, error);
}

void make_directories(const fs::path& directory) {
  if (directory.empty()) return;
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) throw_file_error("created", directory, error.value());
  if (!fs::is_directory(directory, error)) throw_file_error("created", directory, ENOTDIR);
}

bool is_inside(const fs::path& folder, const fs::path& relative) {
  if (relative.empty() || relative.is_absolute()) return false;
  if (relative.string().find('\0') != std::string::npos) return false;
  for (const auto& piece : relative)
    if (piece == "..") return false;
  std::error_code error;
  const fs::path root = fs::weakly_canonical(folder, error);
  if (error) return false;
  const fs::path target = fs::weakly_canonical(root / relative, error);
  if (error) return false;
  const auto [root_end, target_at] = std::mismatch(root.begin(), root.end(), target.begin(), target.end());
  return root_end == root.end() && target_at != target.end();
}

// --- AtomicFile ---

AtomicFile::AtomicFile(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) throw_file_error("written", path, EISDIR);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    state_ = State::direct;
    path_ = temporary_ = path;
    file_ = File(open_descriptor("written", path, O_WRONLY), path);
    return;
  }
  path_ = final_path(path);
  make_directories(path_.parent_path());
  remove_stale_asides(path_);
  for (;;) {
    temporary_ = aside_name(path_);
    file_ = File(open_descriptor("created", temporary_, O_RDWR | O_CREAT | O_EXCL), temporary_);
    // Another process that looks for abandoned files may have seen it before its lock: then it is gone again.
    struct stat linked {};
    if (!lock_file(file_.descriptor_) || (::fstat(file_.descriptor_, &linked) == 0 && linked.st_nlink > 0))
      return;
  }
}

AtomicFile::~AtomicFile() {
  if (state_ == State::open) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::string_view text) {
  file_.write_at(written_, std::as_bytes(std::span(text)));
  written_ += static_cast<std::int64_t>(text.size());
}

void AtomicFile::publish() {
  require(state_ != State::published, "{} published twice", path_.string());
  if (state_ == State::direct) {
    file_.close();
    state_ = State::published;
    return;
  }
  file_.sync();
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) throw_file_error("written", path_, errno);
  state_ = State::published;
  file_.close();
  sync_directory(path_.parent_path());
}

void write_file_atomically(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.publish();
}

// --- AtomicDirectory ---

namespace {

void check_replaceable(const fs::path& path, const std::string& marker) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) return;
  require_user(fs::is_directory(status), "{}: exists and is not a folder: choose another output or remove it",
               path.string());
  if (fs::is_empty(path, error) || fs::exists(path / marker, error)) return;
  throw_user_error(
      "{}: this folder exists and holds other things (no {} in it), so it is not replaced: choose another "
      "output or empty it",
      path.string(), marker);
}

void sync_tree(const fs::path& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_symlink()) continue;
    if (entry.is_directory()) sync_directory(entry.path());
    if (entry.is_regular_file()) File::open_read(entry.path()).sync();
  }
  sync_directory(folder);
}

}  // namespace

AtomicDirectory::AtomicDirectory(const fs::path& path, const std::string& marker)
    : path_(final_path(path)), marker_(marker) {
  check_replaceable(path_, marker_);
  make_directories(path_.parent_path());
  remove_stale_asides(path_);
  for (;;) {
    temporary_ = aside_name(path_);
    if (::mkdir(temporary_.c_str(), 0777) != 0) throw_file_error("created", temporary_, errno);
    // Another process that looks for abandoned folders may remove it before it is locked.
    const int descriptor = ::open(temporary_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0 && errno == ENOENT) continue;
    if (descriptor < 0) throw_file_error("created", temporary_, errno);
    lock_ = File(descriptor, temporary_);
    struct stat linked {};
    if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) continue;
    if (::fstat(descriptor, &linked) == 0 && linked.st_nlink > 0) return;
  }
}

AtomicDirectory::~AtomicDirectory() {
  if (published_) return;
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

void AtomicDirectory::publish() {
  require(!published_, "{} published twice", path_.string());
  sync_tree(temporary_);
  check_replaceable(path_, marker_);
  // Over nothing or an empty folder a plain rename; else both names change place in one step.
  if (::rename(temporary_.c_str(), path_.c_str()) == 0) {
    published_ = true;
  } else if (errno != ENOTEMPTY && errno != EEXIST) {
    throw_file_error("written", path_, errno);
  } else if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) == 0) {
    published_ = true;
    std::error_code ignored;
    fs::remove_all(temporary_, ignored);
  } else if (errno == EINVAL || errno == ENOSYS || errno == ENOTSUP) {
    // A file system without the exchange: for a moment there is neither, and what is there is always whole.
    const fs::path old = aside_name(path_);
    if (::rename(path_.c_str(), old.c_str()) != 0) throw_file_error("written", path_, errno);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
      const int error = errno;
      ::rename(old.c_str(), path_.c_str());
      throw_file_error("written", path_, error);
    }
    published_ = true;
    std::error_code ignored;
    fs::remove_all(old, ignored);
  } else {
    throw_file_error("written", path_, errno);
  }
  sync_directory(path_.parent_path());
  lock_ = File();
}

}  // namespace verne
