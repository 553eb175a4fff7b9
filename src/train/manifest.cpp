#include "verne/train/manifest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "verne/host/environment.hpp"

namespace verne {
namespace fs = std::filesystem;

InputFingerprint fingerprint(const fs::path& input) {
  std::error_code failed;
  if (!fs::is_directory(input, failed)) {
    const auto bytes = fs::file_size(input, failed);
    require_user(!failed, "{} cannot be read: {}", input.string(), failed.message());
    return {input.string(), static_cast<std::int64_t>(bytes), sha256_file(input)};
  }
  std::vector<fs::path> files;
  for (auto entry = fs::recursive_directory_iterator(input, failed);
       entry != fs::recursive_directory_iterator(); entry.increment(failed)) {
    require_user(!failed, "{} cannot be read: {}", input.string(), failed.message());
    if (entry->is_regular_file()) files.push_back(fs::relative(entry->path(), input));
  }
  require_user(!failed, "{} cannot be read: {}", input.string(), failed.message());
  std::sort(files.begin(), files.end());
  InputFingerprint result{input.string(), 0, {}};
  Sha256 sum;
  for (const auto& file : files) {
    result.bytes += static_cast<std::int64_t>(fs::file_size(input / file));
    sum.update(fmt::format("{}  {}\n", sha256_file(input / file), file.string()));
  }
  result.sha256 = sum.hex();
  return result;
}

std::string manifest_json(const Manifest& manifest) {
  const ProgramFacts program = program_facts();
  std::array<char, 32> time{};
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  std::strftime(time.data(), time.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);

  nlohmann::ordered_json json;
  json["format_version"] = 1;
  json["time_utc"] = time.data();
  json["program"] = {{"name", "verne"},
                     {"version", program.version},
                     {"git_commit", program.git_commit},
                     {"compiler", program.compiler},
                     {"build_type", program.build_type}};
  json["libraries"] = library_versions();
  json["verb"] = manifest.verb;
  json["command_line"] = manifest.command_line;
  if (!manifest.recipe.empty()) json["recipe"] = manifest.recipe;
  json["layout"] = manifest.layout;
  json["seeds"] = manifest.seeds;
  auto& ranks = json["ranks"] = nlohmann::ordered_json::array();
  for (std::size_t rank = 0; rank < manifest.rank_hosts.size(); ++rank) {
    ranks.push_back({{"rank", rank},
                     {"host", manifest.rank_hosts[rank]},
                     {"device", rank < manifest.devices.size() ? manifest.devices[rank] : ""}});
  }
  auto& inputs = json["inputs"] = nlohmann::ordered_json::array();
  for (const auto& input : manifest.inputs) {
    inputs.push_back({{"path", input.path}, {"bytes", input.bytes}, {"sha256", input.sha256}});
  }
  json["notes"] = manifest.notes;
  // A path need not be UTF-8; what is not is replaced rather than refused.
  return json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace verne
