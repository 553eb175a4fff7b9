#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "verne/checkpoint/index.hpp"

namespace {

void expect(bool holds) {
  if (!holds) __builtin_trap();
}

/// Bytes are refused with a UserError, or are an index to the last bit whose tensors lie within the file.
void parse(std::span<const std::byte> bytes) {
  verne::CheckpointIndex index;
  try {
    index = verne::parse_index(bytes, "fuzz");
  } catch (const verne::UserError&) {
    return;
  }
  for (const auto& tensors : index.groups) {
    for (const verne::StoredTensor& tensor : tensors) {
      expect(tensor.offset >= 0 && tensor.info.bytes() >= 0);
      expect(tensor.offset <= index.file_bytes - tensor.info.bytes());
      expect(verne::block_count(tensor.info) >= 0);
    }
  }
  const std::vector<std::byte> again = verne::encode_index(index);
  expect(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()));
}

}  // namespace

// The input once as it is, once with the checksum that it should have.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  parse(bytes);
  if (size < 16) return 0;
  const std::uint64_t hash = verne::xxh3(std::span(bytes).subspan(16));
  std::memcpy(bytes.data() + 8, &hash, sizeof hash);
  parse(bytes);
  return 0;
}
