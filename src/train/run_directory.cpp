#include "verne/train/run_directory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <thread>

#include "verne/base/error.hpp"
#include "verne/host/environment.hpp"

namespace verne {
namespace fs = std::filesystem;

fs::path RunPaths::rank_log(int rank) const {
  return directory_ / "logs" / fmt::format("rank_{:05d}.txt", rank);
}
fs::path RunPaths::checkpoint(std::int64_t step) const {
  return checkpoints() / fmt::format("step_{:08d}.h5", step);
}

namespace {

struct ::flock whole_file() {
  struct ::flock range {};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  return range;
}

std::string owner(int descriptor) {
  std::array<char, 256> text{};
  const ssize_t length = ::pread(descriptor, text.data(), text.size() - 1, 0);
  if (length <= 0) return "another process";
  std::string name(text.data(), static_cast<std::size_t>(length));
  while (!name.empty() && name.back() == '\n') name.pop_back();
  return name;
}

}  // namespace

RunLock::RunLock(const fs::path& directory, double patience_s) {
  std::error_code failed;
  fs::create_directories(directory, failed);
  if (failed) throw_system_error("run.dir {} cannot be made: {}", directory.string(), failed.message());
  const fs::path file = directory / ".lock";
  descriptor_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw_errno(fmt::format("{} cannot be opened for writing", file.string()), errno);
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::duration<double>(patience_s);
  // Open-file-description locks: they go with the descriptor, and work over NFS and Lustre where POSIX locks
  // do.
  for (auto range = whole_file(); ::fcntl(descriptor_, F_OFD_SETLK, &range) != 0;) {
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EACCES) {
      log_warning("{} cannot be locked ({}): nothing keeps a second run out of this directory", file.string(),
                  std::generic_category().message(errno));
      return;
    }
    if (std::chrono::steady_clock::now() >= give_up) {
      const std::string holder = owner(descriptor_);
      ::close(descriptor_);
      throw_user_error(
          "run.dir {} is in use by {}. Wait until that run has ended, or give this one another run.dir.",
          directory.string(), holder);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  const std::string text = fmt::format("process {} on {}\n", ::getpid(), host_name());
  if (::ftruncate(descriptor_, 0) != 0 || ::pwrite(descriptor_, text.data(), text.size(), 0) < 0) {
    const int error = errno;
    ::close(descriptor_);
    throw_errno(fmt::format("{} cannot be written", file.string()), error);
  }
}

RunLock::~RunLock() {
  ::close(descriptor_);
}

void add_run_logs(Logging& logging, const RunPaths& paths, int rank) {
  logging.add_file(paths.rank_log(rank));
  if (rank == 0) logging.add_file(paths.log());
}

void publish_text(const fs::path& file, const std::string& text) {
  const fs::path partial = file.string() + ".partial";
  std::FILE* out = std::fopen(partial.c_str(), "wb");
  if (!out) throw_errno(fmt::format("{} cannot be opened for writing", partial.string()), errno);
  bool whole = std::fwrite(text.data(), 1, text.size(), out) == text.size();
  whole = std::fflush(out) == 0 && whole && ::fsync(::fileno(out)) == 0;
  const int error = errno;
  std::fclose(out);
  if (!whole || std::rename(partial.c_str(), file.c_str()) != 0) {
    const int reason = whole ? errno : error;
    std::remove(partial.c_str());
    throw_errno(fmt::format("{} cannot be written", file.string()), reason);
  }
}

}  // namespace verne
