#pragma once
#include <filesystem>
#include <iosfwd>

namespace verne {

enum class InspectVerify { no, yes };
/// Prints a checkpoint, a Hugging Face folder or a token shard: tensors, shapes, dtypes, state, sizes. With
/// `verify` reads everything and checks every checksum, offset and mask; throws UserError at what is wrong.
void inspect_show(const std::filesystem::path& path, InspectVerify verify, std::ostream& out);

enum class Comparison { equal, different };
/// Prints the largest absolute and relative difference of each tensor (checkpoints and folders in any
/// pairing), or the first documents that differ (two shards).
Comparison inspect_compare(const std::filesystem::path& left, const std::filesystem::path& right,
                           std::ostream& out);

}  // namespace verne
