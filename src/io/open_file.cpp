#include "verne/io/open_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "verne/base/error.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;

bool is_bad_path(int error_number) {
  switch (error_number) {
    case ENOENT:
    case EACCES:
    case EPERM:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case EROFS:
    case EEXIST:
    case ENOTEMPTY:
    case ETXTBSY:
      return true;
    case EINVAL:
      return true;
    default:
      return false;
  }
}

int open_descriptor(std::string_view action, const fs::path& path, int flags) {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  } while (descriptor < 0 && errno == EINTR);
  if (descriptor < 0) throw_file_error(action, path, errno);
  return descriptor;
}

}  // namespace

void throw_file_error(std::string_view action, const fs::path& path, int error_number) {
  const std::string reason = reason_of(error_number);
  if (is_bad_path(error_number)) throw_user_error("{}: cannot be {}: {}", path.string(), action, reason);
  throw_system_error("{}: cannot be {}: {}", path.string(), action, reason);
}

File File::open_read(const fs::path& path) {
  File file(open_descriptor("read", path, O_RDONLY), path);
  struct stat status {};
  if (::fstat(file.descriptor_, &status) != 0) throw_file_error("read", path, errno);
  if (S_ISDIR(status.st_mode)) throw_file_error("read", path, EISDIR);
  return file;
}
File File::create(const fs::path& path) {
  return File(open_descriptor("created", path, O_RDWR | O_CREAT | O_TRUNC), path);
}
File File::open_write(const fs::path& path) {
  return File(open_descriptor("written", path, O_RDWR), path);
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}
File::File(File&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), path_(std::move(other.path_)) {}
File& File::operator=(File&& other) noexcept {
  if (this != &other) {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = std::exchange(other.descriptor_, -1);
    path_ = std::move(other.path_);
  }
  return *this;
}

std::int64_t File::size() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) throw_file_error("examined", path_, errno);
  return status.st_size;
}

void File::read_at(std::int64_t offset, std::span<std::byte> to) const {
  // The kernel moves at most 0x7ffff000 bytes a call; smaller pieces keep it interruptible.
  constexpr std::size_t kPiece = std::size_t{1} << 30;
  for (std::size_t done = 0; done < to.size();) {
    const std::size_t want = std::min(to.size() - done, kPiece);
    const ssize_t got = ::pread(descriptor_, to.data() + done, want,
                                static_cast<off_t>(offset + static_cast<std::int64_t>(done)));
    if (got < 0) {
      if (errno == EINTR) continue;
      throw_file_error("read", path_, errno);
    }
    if (got == 0) {
      throw_user_error(
          "{}: ends at byte {}, but bytes {} to {} are needed: the file is truncated or was changed "
          "meanwhile",
          path_.string(), offset + static_cast<std::int64_t>(done), offset,
          offset + static_cast<std::int64_t>(to.size()));
    }
    done += static_cast<std::size_t>(got);
  }
}

void File::will_read(std::int64_t offset, std::int64_t bytes) const {
  ::posix_fadvise(descriptor_, offset, bytes, POSIX_FADV_WILLNEED);
}

void File::write_at(std::int64_t offset, std::span<const std::byte> from) const {
  constexpr std::size_t kPiece = std::size_t{1} << 30;
  for (std::size_t done = 0; done < from.size();) {
    const std::size_t want = std::min(from.size() - done, kPiece);
    ssize_t put = ::pwrite(descriptor_, from.data() + done, want,
                           static_cast<off_t>(offset + static_cast<std::int64_t>(done)));
    if (put < 0 && errno == ESPIPE) put = ::write(descriptor_, from.data() + done, want);
    if (put < 0) {
      if (errno == EINTR) continue;
      throw_file_error("written", path_, errno);
    }
    done += static_cast<std::size_t>(put);
  }
}

void File::reserve(std::int64_t bytes) const {
  if (bytes <= 0) return;
  // Not posix_fallocate: where the file system cannot set space aside, glibc writes a byte to every page.
  int error = 0;
  do {
    error = ::fallocate(descriptor_, 0, 0, bytes) == 0 ? 0 : errno;
  } while (error == EINTR);
  if (error == EOPNOTSUPP || error == EINVAL || error == ENOSYS) {  // it still takes the size
    if (size() >= bytes) return;
    error = ::ftruncate(descriptor_, bytes) == 0 ? 0 : errno;
  }
  if (is_disk_full(error)) {
    throw_system_error("{}: {} bytes cannot be set aside: {}", path_.string(), bytes, reason_of(error));
  }
  if (error != 0) throw_file_error("extended", path_, error);
}

void File::begin_sync(std::int64_t offset, std::int64_t bytes) const {
  ::sync_file_range(descriptor_, offset, bytes, SYNC_FILE_RANGE_WRITE);
}

void File::sync() const {
  if (::fsync(descriptor_) != 0 && errno != EINVAL && errno != ENOTSUP)
    throw_file_error("synced", path_, errno);
}

void File::close() {
  const int descriptor = std::exchange(descriptor_, -1);
  if (descriptor >= 0 && ::close(descriptor) != 0 && errno != EINTR)
    throw_file_error("written", path_, errno);
}

}  // namespace verne
