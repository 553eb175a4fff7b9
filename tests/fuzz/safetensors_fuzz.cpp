#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "verne/base/error.hpp"
#include "verne/io/safetensors.hpp"

namespace {

void expect(bool holds) {
  if (!holds) __builtin_trap();
}

/// A header is refused with a UserError, or what it says holds: entries without hole or overlap from the
/// header to the end of the file, each as long as its shape and dtype say.
void parse(std::string_view header, std::int64_t file_bytes) {
  verne::SafetensorsHeader parsed;
  try {
    parsed = verne::parse_safetensors_header(header, file_bytes, "fuzz");
  } catch (const verne::UserError&) {
    return;
  }
  std::int64_t at = parsed.data_begin;
  for (const verne::SafetensorsEntry& entry : parsed.entries) {
    expect(entry.begin == at && entry.end >= entry.begin);
    at = entry.end;
    const auto dtype = verne::dtype_from_safetensors(entry.dtype);
    if (!dtype || entry.shape.size() > static_cast<std::size_t>(verne::Shape::kMaxRank)) continue;
    const verne::TensorInfo info{entry.name, *dtype,
                                 verne::Shape(std::span<const std::int64_t>(entry.shape))};
    expect(info.bytes() == entry.end - entry.begin);
  }
  expect(at == file_bytes);
}

}  // namespace

// The input once as a whole file, once as the header's JSON alone with two more bytes that say how long the
// data is.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  try {
    const auto header_bytes = verne::safetensors_header_bytes(std::as_bytes(std::span(input)),
                                                              static_cast<std::int64_t>(size), "fuzz");
    expect(header_bytes >= 8 && header_bytes <= static_cast<std::int64_t>(size));
    parse(input, static_cast<std::int64_t>(size));
  } catch (const verne::UserError&) {
  }
  if (size < 2) return 0;
  std::uint16_t data_bytes = 0;
  std::memcpy(&data_bytes, data + size - 2, 2);
  const std::uint64_t length = size - 2;
  std::string header(8, '\0');
  std::memcpy(header.data(), &length, 8);
  header += input.substr(0, size - 2);
  parse(header, static_cast<std::int64_t>(header.size() + data_bytes));
  return 0;
}
