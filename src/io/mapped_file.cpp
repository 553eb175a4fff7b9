#include "verne/io/mapped_file.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "verne/base/checked.hpp"
#include "verne/io/open_file.hpp"

namespace verne {

namespace fs = std::filesystem;

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  const File file = File::open_read(path);
  size_ = file.size();
  // Zero pages first, then the file over their beginning: what follows the content may be read.
  const std::int64_t page = ::sysconf(_SC_PAGESIZE);
  mapped_ = round_up(size_, page) + round_up(kPaddingBytes, page);
  void* memory =
      ::mmap(nullptr, static_cast<std::size_t>(mapped_), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw_file_error("mapped", path, errno);
  data_ = static_cast<std::byte*>(memory);
  if (size_ == 0) return;
  if (::mmap(memory, static_cast<std::size_t>(size_), PROT_READ, MAP_PRIVATE | MAP_FIXED, file.descriptor(),
             0) == MAP_FAILED) {
    const int error = errno;
    ::munmap(memory, static_cast<std::size_t>(mapped_));
    throw_file_error("mapped", path, error);
  }
  ::madvise(memory, static_cast<std::size_t>(size_), MADV_SEQUENTIAL);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(data_, static_cast<std::size_t>(mapped_));
}
MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}
MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

}  // namespace verne
