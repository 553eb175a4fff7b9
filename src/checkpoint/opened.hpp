#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "verne/checkpoint/index.hpp"

namespace verne {

/// What one rank reads of a checkpoint with HDF5, for all: everything but the tensors' bytes.
struct OpenedCheckpoint {
  std::string state, frozen;  ///< JSON texts; `frozen` is empty where there are none
  SideFiles side_files;
  CheckpointIndex index;
  std::vector<std::uint64_t> checksums;  ///< of all blocks in the file's order
  std::uint64_t digest = 0;
};

/// Opens and verifies the structure: format version, every tensor's storage within the file, a checksum for
/// every block, their digest. UserError naming the file and what is wrong with it.
OpenedCheckpoint open_checkpoint(const std::filesystem::path& path);

/// UserError unless the file is a checkpoint of a version that this program reads.
void check_format(const Hdf5File& hdf5);
/// The index as HDF5's own objects say it, without /index.
CheckpointIndex walk_tensors(const Hdf5File& hdf5, std::int64_t file_bytes);

/// UserError naming `where` unless it is a JSON object with a step that can be.
CheckpointState parse_state(const std::string& text, const std::string& where);

/// For other ranks, and back. `origin` is for messages.
std::string pack(const OpenedCheckpoint& opened);
OpenedCheckpoint unpack(std::string_view packed, const std::string& origin);

}  // namespace verne
