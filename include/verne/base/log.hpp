#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "verne/base/printable.hpp"

namespace verne {

enum class LogLevel { debug, info, warning, error };

/// Sends records to standard output (debug, info; rank 0 only), standard error (warnings and errors) and
/// files, through Boost.Log; each as `printable` gives it. Owned by main; without one, warnings and errors
/// still reach standard error.
class Logging {
 public:
  struct Options {
    LogLevel level = LogLevel::info;
    int rank = 0;
  };
  explicit Logging(const Options& options);
  ~Logging();
  Logging(const Logging&) = delete;
  Logging& operator=(const Logging&) = delete;

  /// Also writes every record of this rank to `file` (parents are made), appending. SystemError where it
  /// cannot be opened, and from the call that logs the first record that cannot be written (a full disk).
  void add_file(const std::filesystem::path& file);
  /// From now on records go to files alone: for an error that another prints.
  void leave_screen();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// A record as it stands, in lines of its own; the functions below make one with `message_text`.
void write_log(LogLevel level, const std::string& message);

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  write_log(LogLevel::debug, message_text(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  write_log(LogLevel::info, message_text(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  write_log(LogLevel::warning, message_text(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  write_log(LogLevel::error, message_text(format, std::forward<Args>(args)...));
}

}  // namespace verne
