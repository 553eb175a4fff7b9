#include "testing.hpp"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "verne/base/error.hpp"

namespace verne::testing {

namespace fs = std::filesystem;

fs::path golden_dir() {
  const char* override_path = std::getenv("VERNE_GOLDEN_DIR");
  return override_path ? override_path : VERNE_GOLDEN_DIR;
}

std::optional<fs::path> shared_dir() {
  const char* override_path = std::getenv("VERNE_SHARED_DIR");
  const fs::path path = override_path ? override_path : VERNE_SHARED_DIR;
  if (!fs::is_directory(path / "golden")) return std::nullopt;
  return path;
}

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = (fs::temp_directory_path() / "verne_test.XXXXXX").string();
  require(mkdtemp(pattern.data()) != nullptr, "mkdtemp failed for {}", pattern);
  path_ = pattern;
}
TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  require(file.good(), "{} cannot be read", path.string());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_text(const fs::path& path, const std::string& text) {
  if (path.has_parent_path()) fs::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  require(!file.fail(), "{} cannot be written", path.string());
}

}  // namespace verne::testing
