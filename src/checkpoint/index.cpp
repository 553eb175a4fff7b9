#include "verne/checkpoint/index.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"

namespace verne {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kMagic = "verneix1";
constexpr std::size_t kHashedFrom = 16;
/// Of a tensor without extents, name and dtype: what a count of tensors is bounded by.
constexpr std::size_t kLeastTensorBytes = 24;

class Writer {
 public:
  explicit Writer(std::int64_t bytes) { bytes_.reserve(static_cast<std::size_t>(bytes)); }
  template <class Number>
  void number(Number value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void text(std::string_view value) {
    const auto bytes = std::as_bytes(std::span(value));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  std::vector<std::byte>& bytes() { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& origin) : bytes_(bytes), origin_(origin) {}

  std::span<const std::byte> take(std::size_t count) {
    require_user(count <= bytes_.size(), "{}: the index ends within a tensor", origin_);
    const auto taken = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return taken;
  }
  template <class Number>
  Number number() {
    Number value{};
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string text(std::size_t length) {
    const auto bytes = take(length);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::size_t left() const { return bytes_.size(); }

 private:
  std::span<const std::byte> bytes_;
  const std::string& origin_;
};

StoredTensor read_tensor(Reader& reader, const CheckpointIndex& index, const std::string& origin) {
  const auto name_length = reader.number<std::uint32_t>(), dtype_length = reader.number<std::uint32_t>(),
             rank = reader.number<std::uint32_t>(), zero = reader.number<std::uint32_t>();
  require_user(rank <= static_cast<std::uint32_t>(Shape::kMaxRank) && zero == 0,
               "{}: the index has a tensor of {} dimensions, at most {} are known", origin, rank,
               Shape::kMaxRank);
  std::array<std::int64_t, Shape::kMaxRank> extents{};
  for (std::uint32_t axis = 0; axis < rank; ++axis) extents[axis] = reader.number<std::int64_t>();
  const auto offset = reader.number<std::int64_t>();
  std::string name = reader.text(name_length);
  const std::string dtype_word = reader.text(dtype_length);
  require_user(!name.empty() && name.find('/') == std::string::npos,
               "{}: the index has a tensor named \"{}\"", origin, name);
  const std::optional<DType> dtype = dtype_from_name(dtype_word);
  require_user(dtype && verne::name(*dtype) == dtype_word,
               "{}: the index says that {} is of dtype \"{}\", which is not known", origin, name, dtype_word);
  std::optional<std::int64_t> total_bits = bits(*dtype);
  bool empty = false;
  for (std::uint32_t axis = 0; axis < rank; ++axis) {
    empty = empty || extents[axis] == 0;
    if (total_bits)
      total_bits = extents[axis] < 0
                       ? std::nullopt
                       : checked_multiply(*total_bits, std::max<std::int64_t>(extents[axis], 1));
  }
  require_user(total_bits.has_value(), "{}: the index has {} larger than any file", origin, name);
  const Shape shape(std::span<const std::int64_t>(extents).first(rank));
  const std::int64_t bytes = bytes_of(*dtype, shape.count());
  require_user(offset >= 0 && (empty ? offset == 0 : offset <= index.file_bytes - bytes),
               "{}: the index has {} at byte {}, which leaves the file of {} bytes", origin, name, offset,
               index.file_bytes);
  return {{std::move(name), *dtype, shape}, offset};
}

}  // namespace

std::int64_t encoded_bytes(const CheckpointIndex& index) {
  std::int64_t bytes = static_cast<std::int64_t>(kHashedFrom) + 8 + 8 * kCheckpointGroups;
  for (const auto& tensors : index.groups) {
    for (const auto& [info, offset] : tensors)
      bytes += 16 + 8 * info.shape.rank() + 8 + std::ssize(info.name) + std::ssize(name(info.dtype));
  }
  return bytes;
}

std::vector<std::byte> encode_index(const CheckpointIndex& index) {
  Writer writer(encoded_bytes(index));
  writer.text(kMagic);
  writer.number(std::uint64_t{0});
  writer.number(index.file_bytes);
  for (const auto& tensors : index.groups) writer.number(static_cast<std::uint64_t>(tensors.size()));
  for (const auto& tensors : index.groups) {
    for (const StoredTensor& tensor : tensors) {
      const std::string_view dtype = name(tensor.info.dtype);
      writer.number(static_cast<std::uint32_t>(tensor.info.name.size()));
      writer.number(static_cast<std::uint32_t>(dtype.size()));
      writer.number(static_cast<std::uint32_t>(tensor.info.shape.rank()));
      writer.number(std::uint32_t{0});
      for (const std::int64_t extent : tensor.info.shape.extents()) writer.number(extent);
      writer.number(tensor.offset);
      writer.text(tensor.info.name);
      writer.text(dtype);
    }
  }
  std::vector<std::byte> bytes = std::move(writer.bytes());
  const std::uint64_t hash = xxh3(std::span(bytes).subspan(kHashedFrom));
  std::memcpy(bytes.data() + kMagic.size(), &hash, sizeof hash);
  return bytes;
}

CheckpointIndex parse_index(std::span<const std::byte> bytes, const std::string& origin) {
  Reader reader(bytes, origin);
  require_user(bytes.size() >= kHashedFrom && reader.text(kMagic.size()) == kMagic,
               "{}: /index is of a kind that this program does not know", origin);
  require_user(reader.number<std::uint64_t>() == xxh3(bytes.subspan(kHashedFrom)),
               "{}: /index does not hash to its checksum: the file is damaged or was changed", origin);
  CheckpointIndex index;
  index.file_bytes = reader.number<std::int64_t>();
  require_user(index.file_bytes >= 0, "{}: /index is of a file of {} bytes", origin, index.file_bytes);
  ByGroup<std::uint64_t> counts{};
  std::uint64_t total = 0;
  for (std::uint64_t& count : counts) {
    count = reader.number<std::uint64_t>();
    require_user(count <= reader.left() && (total += count) <= reader.left() / kLeastTensorBytes,
                 "{}: /index counts {} tensors and has no room for them", origin, count);
  }
  for (std::size_t group = 0; group < counts.size(); ++group) {
    auto& tensors = index.groups[group];
    tensors.reserve(counts[group]);
    for (std::uint64_t i = 0; i < counts[group]; ++i) {
      StoredTensor tensor = read_tensor(reader, index, origin);
      require_user(tensors.empty() || tensors.back().info.name < tensor.info.name,
                   "{}: the index has {} twice or out of order", origin, tensor.info.name);
      tensors.push_back(std::move(tensor));
    }
  }
  require_user(reader.left() == 0, "{}: /index goes on for {} bytes after its last tensor", origin,
               reader.left());
  return index;
}

}  // namespace verne
