#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "verne/checkpoint/format.hpp"
#include "verne/io/hdf5.hpp"

namespace verne {

/// Every tensor of a checkpoint file and where it begins.
struct CheckpointIndex {
  ByGroup<std::vector<StoredTensor>> groups;  ///< each in byte order of the names
  std::int64_t file_bytes = 0;
};

// The bytes of /index, numbers little-endian:
//   "verneix1" | u64: XXH3 of all that follows | i64: bytes of the file | 4 × u64: tensors of each group
// then for each tensor, groups one after the other:
//   u32 × 4: lengths of name and dtype, dimensions, 0 | i64 × dimensions: extents | i64: byte in the file
//   | name | dtype ("bf16", as name(DType) spells it)

std::vector<std::byte> encode_index(const CheckpointIndex& index);
/// How many that will be.
std::int64_t encoded_bytes(const CheckpointIndex& index);

/// Takes bytes from anywhere: UserError naming `origin` and what is wrong unless they are an index, whole and
/// unchanged, whose tensors lie within the file, each name once.
CheckpointIndex parse_index(std::span<const std::byte> bytes, const std::string& origin);

}  // namespace verne
