#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace verne {

/// An input of a run: a path as the user gave it, and the SHA-256 of its content; for a folder, of the lines
/// "<sha-256>  <relative path>\n" of its regular files in order of path.
struct InputFingerprint {
  std::string path;
  std::int64_t bytes = 0;
  std::string sha256;
};
/// Throws UserError where the input cannot be read.
InputFingerprint fingerprint(const std::filesystem::path& input);

/// What reproduces a run.
struct Manifest {
  std::string verb;
  std::vector<std::string> command_line;
  std::string recipe;                          ///< empty: none
  std::map<std::string, std::int64_t> layout;  ///< ranks, tensor, data, ...
  std::map<std::string, std::int64_t> seeds;
  std::vector<std::string> rank_hosts;  ///< the host of each rank, by rank
  std::vector<std::string> devices;     ///< the device of each rank, by rank
  std::vector<InputFingerprint> inputs;
  std::map<std::string, std::string> notes;  ///< whatever else: dtype, template, tokenizer hash, ...
};

/// The manifest as JSON, with the program's facts, the library versions and the time.
std::string manifest_json(const Manifest& manifest);

}  // namespace verne
