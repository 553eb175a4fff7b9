#pragma once
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>

namespace verne {

enum class LogLevel { debug, info, warning, error };

/// Sends records to standard output (debug, info; rank 0 only), standard error (warnings and errors) and
/// files, through Boost.Log. Owned by main; without one, warnings and errors still reach standard error.
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

  /// Also writes every record of this rank to `file` (parents are made), appending.
  void add_file(const std::filesystem::path& file);
  /// From now on records go to files alone: for an error that another prints.
  void leave_screen();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

void write_log(LogLevel level, const std::string& message);

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  write_log(LogLevel::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  write_log(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  write_log(LogLevel::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  write_log(LogLevel::error, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace verne
