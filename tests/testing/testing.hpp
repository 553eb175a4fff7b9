#pragma once
#include <filesystem>
#include <optional>
#include <string>

namespace verne::testing {

/// The project's own small golden cases (tests/golden); the environment variable VERNE_GOLDEN_DIR overrides
/// the place.
std::filesystem::path golden_dir();
/// The larger cases beside a checkout, where they exist; the environment variable VERNE_SHARED_DIR overrides
/// the place.
std::optional<std::filesystem::path> shared_dir();

/// A directory of its own under the system's temporary directory, removed with its content at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

std::string read_text(const std::filesystem::path& path);
void write_text(const std::filesystem::path& path, const std::string& text);

}  // namespace verne::testing
