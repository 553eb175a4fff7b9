#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "verne/checkpoint/format.hpp"
#include "verne/io/sparse_image.hpp"

namespace verne {

/// What a file holds besides tensors.
struct FileTexts {
  const CheckpointState& state;
  const SideFiles& side_files;
  const std::vector<FrozenTensor>& frozen;
};

/// A checkpoint's file as HDF5 lays it out, in memory: all but the tensors' bytes and their checksums, whose
/// places are known. It serves for every save of the same tensors and side files.
struct FileLayout {
  SparseImage image;                  ///< of the whole file's size
  std::vector<std::int64_t> offsets;  ///< byte of the file where each tensor begins, in the file's order
  ByGroup<std::int64_t> checksums_at{};
  std::int64_t digest_at = 0, state_at = 0, state_bytes = 0;
};

/// Throws SystemError where HDF5 fails. `name` is for messages.
FileLayout lay_out(const FileTensors& tensors, const FileTexts& texts, const std::string& name);

/// The text of /state; what is no UTF-8 in it is replaced.
std::string state_text(const CheckpointState& state);
/// Bytes that a layout sets aside for a state.
std::int64_t state_room(const std::string& text);
/// Puts another state into the layout: its text must have the same room.
void set_state(FileLayout& layout, const std::string& text);

}  // namespace verne
