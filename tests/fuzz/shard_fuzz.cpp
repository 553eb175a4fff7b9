#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "verne/base/error.hpp"
#include "verne/io/hdf5.hpp"
#include "verne/io/shard.hpp"

namespace verne {
namespace {

/// Takes values off the input; zeros once it is used up.
class Input {
 public:
  explicit Input(std::span<const std::uint8_t> data) : data_(data) {}
  std::uint8_t byte() {
    if (data_.empty()) return 0;
    const std::uint8_t value = data_.front();
    data_ = data_.subspan(1);
    return value;
  }
  /// Small, or now and then of any size.
  std::int64_t integer() {
    const std::uint8_t first = byte();
    if (first < 250) return first % 16;
    std::uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | byte();
    return static_cast<std::int64_t>(value);
  }
  std::vector<std::byte> bytes(std::int64_t count) {
    std::vector<std::byte> taken(static_cast<std::size_t>(count));
    for (std::byte& value : taken) value = static_cast<std::byte>(byte());
    return taken;
  }

 private:
  std::span<const std::uint8_t> data_;
};

constexpr std::array kTypes{Hdf5Type::u8,  Hdf5Type::u32,  Hdf5Type::u64, Hdf5Type::i32, Hdf5Type::i64,
                            Hdf5Type::f16, Hdf5Type::bf16, Hdf5Type::f32, Hdf5Type::f64, Hdf5Type::f8_e4m3};

void add_array(Hdf5File& file, Input& input, const std::string& path, Hdf5Type usual,
               std::int64_t usual_count) {
  const std::uint8_t choice = input.byte();
  if (choice == 255) return;  // missing
  const Hdf5Type type = choice > 200 ? kTypes[choice % kTypes.size()] : usual;
  std::vector<std::int64_t> extents{choice % 32 == 31 ? input.integer() & 63 : usual_count};
  if (choice % 64 == 62) extents.push_back(1 + input.byte() % 3);
  const Hdf5Dataset data = file.create_dataset(path, type, extents);
  data.write(0, input.bytes(data.bytes()));
}

/// A valid HDF5 file that is a token shard, nearly.
void write_nearly_a_shard(const std::string& path, Input& input) {
  Hdf5File file = Hdf5File::create(path);
  const std::int64_t documents = input.integer() & 31, tokens = input.integer() & 63;
  const auto attribute = [&](const char* name, std::int64_t usual) {
    const std::uint8_t choice = input.byte();
    if (choice == 255) return;
    if (choice == 254) return file.write_attribute("/", name, "text");
    file.write_attribute("/", name, choice > 240 ? input.integer() : usual);
  };
  if (input.byte() != 255) file.write_attribute("/", "format", "verne token shard");
  attribute("format_version", kShardFormatVersion);
  if (input.byte() != 255) file.write_attribute("/", "tokenizer_hash", std::string(input.byte() % 4, 'h'));
  if (input.byte() != 255) file.write_attribute("/", "template", "none");
  attribute("documents", documents);
  attribute("tokens", tokens);
  attribute("trained_tokens", 0);
  add_array(file, input, "/tokens", Hdf5Type::u32, tokens);
  add_array(file, input, "/loss_mask", Hdf5Type::u8, tokens);
  if (input.byte() % 2 == 0) {
    // Offsets that rise, mostly.
    std::vector<std::uint64_t> offsets(static_cast<std::size_t>(documents + 1));
    for (std::size_t i = 1; i < offsets.size(); ++i)
      offsets[i] = offsets[i - 1] + static_cast<std::uint64_t>(input.integer());
    if (input.byte() < 200) offsets.back() = static_cast<std::uint64_t>(tokens);
    file.create_dataset("/document_offsets", Hdf5Type::u64, std::array{documents + 1})
        .write(0, std::as_bytes(std::span(offsets)));
  } else {
    add_array(file, input, "/document_offsets", Hdf5Type::u64, documents + 1);
  }
  if (input.byte() == 255) {
    file.write_text("/metadata", "text");
  } else {
    const std::int64_t strings = input.byte() > 250 ? input.integer() & 31 : documents;
    const std::vector<std::string> values(static_cast<std::size_t>(strings),
                                          std::string(input.byte() % 9, 'm'));
    file.create_strings("/metadata", strings).write(0, values);
  }
  if (input.byte() % 4 == 0) file.write_bytes("/tokenizer/tokenizer.json", "{}");
  file.close();
}

/// What a run does with a shard: everything that the reader accepts must be readable.
void read_all(const std::string& path, const std::optional<std::string>& hash) {
  const ShardReader shard(path, hash);
  const auto offsets = shard.offsets();
  if (offsets.front() != 0 || offsets.back() != static_cast<std::uint64_t>(shard.tokens())) __builtin_trap();
  std::vector<std::uint32_t> tokens;
  for (std::size_t i = 1; i < offsets.size(); ++i) {
    if (offsets[i] < offsets[i - 1]) __builtin_trap();
    tokens.resize(offsets[i] - offsets[i - 1]);
    shard.read_tokens(static_cast<std::int64_t>(offsets[i - 1]), tokens);
  }
  shard.metadata(0, shard.documents());
  shard.tokenizer_files();
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(shard.tokens()));
  shard.read_loss_mask(0, mask);
  if (std::any_of(mask.begin(), mask.end(), [](std::uint8_t value) { return value > 1; })) __builtin_trap();
}

}  // namespace
}  // namespace verne

// The first byte chooses: 0 to 191, a valid HDF5 file whose content follows the input; else such a file cut
// short or with its long arrays overwritten by the rest of the input. The library's own parsing of hostile
// metadata is not the target.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace verne;
  if (size == 0) return 0;
  const std::string path = fmt::format("/dev/shm/verne_shard_fuzz.{}", ::getpid());
  Input input(std::span(data, size).subspan(1));
  write_nearly_a_shard(path, input);
  const int memory = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (memory < 0) __builtin_trap();
  if (data[0] >= 192 && data[0] < 224) {
    if (::ftruncate(memory, ::lseek(memory, 0, SEEK_END) * (data[0] - 191) / 33) != 0) __builtin_trap();
  } else if (data[0] >= 224) {
    const std::vector<std::byte> rest = input.bytes(64);
    const std::string tokens = "/document_offsets";
    const Hdf5File file = Hdf5File::open(path);
    if (file.contains(tokens)) {
      const Hdf5Dataset offsets = file.dataset(tokens);
      const auto length = static_cast<std::size_t>(std::min<std::int64_t>(64, offsets.bytes()));
      if (offsets.file_offset() >= 0 && ::pwrite(memory, rest.data(), length, offsets.file_offset()) < 0)
        __builtin_trap();
    }
  }
  try {
    read_all(path, data[0] % 2 == 0 ? std::nullopt : std::optional<std::string>("hh"));
  } catch (const UserError&) {
  }
  ::close(memory);
  ::unlink(path.c_str());
  return 0;
}
