#pragma once
#include <stdexcept>
#include <string>
#include <utility>

#include "verne/base/printable.hpp"

namespace verne {

/// Exit codes of the program.
enum class ExitCode : int {
  done = 0,
  failure = 1,     ///< anything else, a full disk among them
  user_error = 2,  ///< bad input: running again changes nothing
  requeue = 75,    ///< stopped in good order with a checkpoint
};

/// Base of what Verne throws: the message is meant for a person. The functions below make it with
/// `message_text`: what an argument brings from outside cannot leave its line.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  virtual ExitCode exit_code() const noexcept { return ExitCode::failure; }
};

/// Bad input. The message names the file, key, line or record, what was found, what was expected and what to
/// do.
class UserError : public Error {
 public:
  using Error::Error;
  ExitCode exit_code() const noexcept override { return ExitCode::user_error; }
};

/// The machine or a library refused: CUDA, NCCL, MPI, HDF5, a file system.
class SystemError : public Error {
 public:
  using Error::Error;
};

/// A bug in Verne: a broken contract between two of its parts.
class InternalError : public Error {
 public:
  using Error::Error;
};

template <class... Args>
[[noreturn]] void throw_user_error(fmt::format_string<Args...> format, Args&&... args) {
  throw UserError(message_text(format, std::forward<Args>(args)...));
}
template <class... Args>
[[noreturn]] void throw_system_error(fmt::format_string<Args...> format, Args&&... args) {
  throw SystemError(message_text(format, std::forward<Args>(args)...));
}

/// Throws InternalError unless `condition` holds; the message states the facts.
template <class... Args>
void require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) throw InternalError(message_text(format, std::forward<Args>(args)...));
}
/// Throws UserError unless `condition` holds.
template <class... Args>
void require_user(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) throw UserError(message_text(format, std::forward<Args>(args)...));
}

/// Whether an errno means that no more can be written: no space, a quota, or a size limit such as `ulimit
/// -f`.
bool is_disk_full(int error_number);
/// What an errno means, for the end of a message; says so where the disk is full.
std::string reason_of(int error_number);
/// SystemError for a failed system call: "what: reason".
[[noreturn]] void throw_errno(const std::string& what, int error_number);

}  // namespace verne
