#include "verne/io/safetensors.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <unordered_set>
#include <utility>

#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"
#include "verne/io/blocks.hpp"
#include "verne/io/json.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kLengthBytes = 8;
constexpr std::int64_t kMaxHeaderBytes = 100'000'000;

struct Word {
  std::string_view word;
  std::int64_t bits;
  std::optional<DType> dtype;
};
/// The format's dtypes in the order in which the reference writer lays tensors out: widest first.
constexpr std::array<Word, 22> kWords = {{
    {"U64", 64, {}},
    {"I64", 64, DType::i64},
    {"F64", 64, DType::f64},
    {"C64", 64, {}},
    {"F32", 32, DType::f32},
    {"U32", 32, DType::u32},
    {"I32", 32, DType::i32},
    {"BF16", 16, DType::bf16},
    {"F16", 16, DType::f16},
    {"U16", 16, {}},
    {"I16", 16, {}},
    {"F8_E5M2FNUZ", 8, {}},
    {"F8_E4M3FNUZ", 8, {}},
    {"F8_E8M0", 8, {}},
    {"F8_E4M3", 8, DType::f8_e4m3},
    {"F8_E5M2", 8, {}},
    {"I8", 8, {}},
    {"U8", 8, DType::u8},
    {"F6_E3M2", 6, {}},
    {"F6_E2M3", 6, {}},
    {"F4", 4, {}},
    {"BOOL", 8, {}},
}};

const Word* find_word(std::string_view word) {
  const auto it =
      std::find_if(kWords.begin(), kWords.end(), [&](const Word& known) { return known.word == word; });
  return it == kWords.end() ? nullptr : &*it;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

/// Reads the header's JSON straight into entries, so that memory stays in proportion to the header whatever
/// it holds.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(const std::string& origin, SafetensorsHeader& header) : origin_(origin), header_(header) {}

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("true or false"); }
  bool number_integer(number_integer_t value) override {
    return number(value < 0 ? -1 : value, fmt::to_string(value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    return number(std::in_range<std::int64_t>(value) ? static_cast<std::int64_t>(value) : -1,
                  fmt::to_string(value));
  }
  bool number_float(number_float_t, const string_t& text) override { return number(-1, text); }
  bool binary(binary_t&) override { return unexpected("bytes"); }

  bool string(string_t& value) override {
    if (place_ == Place::metadata) {
      const bool added = header_.metadata.emplace(key_, std::move(value)).second;
      require_user(added, "{}: __metadata__ has the key \"{}\" twice", origin_, key_);
      return true;
    }
    if (place_ != Place::tensor || key_ != "dtype") return unexpected("a string");
    entry_.dtype = std::move(value);
    require_user(find_word(entry_.dtype),
                 "{}: tensor \"{}\" has the unknown dtype \"{}\"; safetensors knows F32, BF16, F16, …",
                 origin_, entry_.name, entry_.dtype);
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::start) {
      place_ = Place::top;
    } else if (place_ == Place::top && key_ == "__metadata__") {
      require_user(!std::exchange(metadata_seen_, true), "{}: the header has __metadata__ twice", origin_);
      place_ = Place::metadata;
    } else if (place_ == Place::top) {
      require_user(names_.insert(key_).second, "{}: the header has tensor \"{}\" twice", origin_, key_);
      place_ = Place::tensor;
      entry_ = {.name = key_, .dtype = {}, .shape = {}};
      fields_.clear();
      offsets_.clear();
    } else {
      return unexpected("an object");
    }
    return true;
  }
  bool end_object() override {
    if (place_ == Place::tensor) {
      for (const char* field : {"dtype", "shape", "data_offsets"})
        require_user(fields_.contains(field), "{}: tensor \"{}\" has no {}", origin_, entry_.name, field);
      require_user(offsets_.size() == 2, "{}: tensor \"{}\" has {} data_offsets, not a begin and an end",
                   origin_, entry_.name, offsets_.size());
      entry_.begin = offsets_[0];
      entry_.end = offsets_[1];
      header_.entries.push_back(std::move(entry_));
      place_ = Place::top;
    } else {
      place_ = place_ == Place::metadata ? Place::top : Place::done;
    }
    return true;
  }
  bool start_array(std::size_t) override {
    if (place_ == Place::tensor && key_ == "shape") {
      place_ = Place::shape;
    } else if (place_ == Place::tensor && key_ == "data_offsets") {
      place_ = Place::offsets;
    } else {
      return unexpected("an array");
    }
    return true;
  }
  bool end_array() override {
    place_ = Place::tensor;
    return true;
  }
  bool key(string_t& value) override {
    key_ = std::move(value);
    if (place_ == Place::tensor) {
      require_user(key_ == "dtype" || key_ == "shape" || key_ == "data_offsets",
                   "{}: tensor \"{}\" has the field \"{}\"; expected dtype, shape and data_offsets", origin_,
                   entry_.name, key_);
      require_user(fields_.insert(key_).second, "{}: tensor \"{}\" has {} twice", origin_, entry_.name, key_);
    }
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    std::string_view text = error.what();
    if (const auto end = text.find("] "); end != std::string_view::npos) text.remove_prefix(end + 2);
    throw_user_error("{}: the header is not valid JSON at byte {}: {}", origin_, position + kLengthBytes,
                     text);
  }

 private:
  enum class Place { start, top, metadata, tensor, shape, offsets, done };

  bool number(std::int64_t value, const std::string& text) {
    const bool shape = place_ == Place::shape;
    if (!shape && place_ != Place::offsets) return unexpected("a number");
    require_user(value >= 0, "{}: tensor \"{}\" has {} in its {}; expected whole numbers from 0 below 2^63",
                 origin_, entry_.name, text, shape ? "shape" : "data_offsets");
    auto& list = shape ? entry_.shape : offsets_;
    require_user(list.size() < (shape ? 64u : 2u), "{}: tensor \"{}\" has more than {} numbers in its {}",
                 origin_, entry_.name, list.size(), shape ? "shape" : "data_offsets");
    list.push_back(value);
    return true;
  }
  bool unexpected(std::string_view found) {
    switch (place_) {
      case Place::metadata:
        throw_user_error("{}: __metadata__ has {} under \"{}\"; expected strings only", origin_, found, key_);
      case Place::top:
        throw_user_error(
            "{}: the header has {} under \"{}\"; expected an object with dtype, shape and data_offsets",
            origin_, found, key_);
      case Place::tensor:
        throw_user_error("{}: tensor \"{}\" has {} under \"{}\"", origin_, entry_.name, found, key_);
      case Place::shape:
      case Place::offsets:
        throw_user_error("{}: tensor \"{}\" has {} in its {}; expected whole numbers", origin_, entry_.name,
                         found, place_ == Place::shape ? "shape" : "data_offsets");
      default:
        throw_user_error("{}: the header is {}; expected an object", origin_, found);
    }
  }

  const std::string& origin_;
  SafetensorsHeader& header_;
  Place place_ = Place::start;
  std::string key_;
  SafetensorsEntry entry_;
  std::unordered_set<std::string> fields_, names_;
  std::vector<std::int64_t> offsets_;
  bool metadata_seen_ = false;
};

/// Offsets against dtype and shape, against each other, and against the file. Makes them offsets in the file.
void check_offsets(SafetensorsHeader& header, std::int64_t file_bytes, const std::string& origin) {
  std::sort(header.entries.begin(), header.entries.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
              return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
            });
  const std::int64_t data_bytes = file_bytes - header.data_begin;
  std::int64_t at = 0;
  const std::string* before = nullptr;
  for (SafetensorsEntry& entry : header.entries) {
    require_user(entry.end >= entry.begin, "{}: tensor \"{}\" ends at byte {} before it begins at byte {}",
                 origin, entry.name, entry.end, entry.begin);
    if (entry.begin != at) {
      throw_user_error("{}: tensor \"{}\" begins at byte {} of the data, but {} byte {}: {}", origin,
                       entry.name, entry.begin,
                       before ? fmt::format("\"{}\" before it ends at", *before)
                              : std::string("the first tensor must begin at"),
                       at, entry.begin < at ? "tensors overlap" : "there is a hole");
    }
    std::optional<std::int64_t> bits = find_word(entry.dtype)->bits;
    for (const std::int64_t extent : entry.shape)
      if (bits) bits = checked_multiply(*bits, extent);
    require_user(bits.has_value(), "{}: tensor \"{}\" of shape {} is larger than any file", origin,
                 entry.name, shape_text(entry.shape));
    require_user(*bits % 8 == 0, "{}: tensor \"{}\" of dtype {} and shape {} does not end on a whole byte",
                 origin, entry.name, entry.dtype, shape_text(entry.shape));
    require_user(
        *bits / 8 == entry.end - entry.begin,
        "{}: tensor \"{}\" of dtype {} and shape {} needs {} bytes, but its data_offsets [{}, {}] span {}",
        origin, entry.name, entry.dtype, shape_text(entry.shape), *bits / 8, entry.begin, entry.end,
        entry.end - entry.begin);
    require_user(entry.end <= data_bytes,
                 "{}: tensor \"{}\" ends at byte {} of the data, but the file holds {}: it is truncated or "
                 "its header is wrong",
                 origin, entry.name, entry.end, data_bytes);
    at = entry.end;
    before = &entry.name;
    entry.begin += header.data_begin;
    entry.end += header.data_begin;
  }
  require_user(at == data_bytes, "{}: the tensors end at byte {} of the data, but the file holds {}", origin,
               at, data_bytes);
}

}  // namespace

std::int64_t safetensors_header_bytes(std::span<const std::byte> prefix, std::int64_t file_bytes,
                                      const std::string& origin) {
  require_user(file_bytes >= kLengthBytes && static_cast<std::int64_t>(prefix.size()) >= kLengthBytes,
               "{}: a file of {} bytes is not safetensors, which begins with a header length of 8 bytes",
               origin, file_bytes);
  std::uint64_t length = 0;
  std::memcpy(&length, prefix.data(), sizeof length);
  static_assert(std::endian::native == std::endian::little);
  require_user(length <= static_cast<std::uint64_t>(kMaxHeaderBytes),
               "{}: not safetensors: its first 8 bytes give a header of {} bytes, more than the {} allowed",
               origin, length, kMaxHeaderBytes);
  const std::int64_t bytes = kLengthBytes + static_cast<std::int64_t>(length);
  require_user(bytes <= file_bytes, "{}: truncated: a header of {} bytes in a file of {}", origin, bytes,
               file_bytes);
  return bytes;
}

SafetensorsHeader parse_safetensors_header(std::string_view text, std::int64_t file_bytes,
                                           const std::string& origin) {
  SafetensorsHeader header;
  header.data_begin = safetensors_header_bytes(std::as_bytes(std::span(text)), file_bytes, origin);
  require(static_cast<std::int64_t>(text.size()) >= header.data_begin, "{}: {} bytes of a header of {}",
          origin, text.size(), header.data_begin);
  const std::string_view json =
      text.substr(kLengthBytes, static_cast<std::size_t>(header.data_begin - kLengthBytes));
  require_user(json.starts_with('{'), "{}: not safetensors: its header does not begin with {{", origin);
  HeaderReader reader(origin, header);
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  check_offsets(header, file_bytes, origin);
  return header;
}

std::string_view safetensors_dtype(DType type) {
  for (const Word& known : kWords)
    if (known.dtype == type) return known.word;
  throw InternalError(fmt::format("no safetensors dtype for {}", name(type)));
}

std::optional<DType> dtype_from_safetensors(std::string_view word) {
  const Word* known = find_word(word);
  return known ? known->dtype : std::nullopt;
}

// --- SafetensorsFile ---

std::string read_safetensors_header(const fs::path& path) {
  const File file = File::open_read(path);
  const std::int64_t file_bytes = file.size();
  std::array<std::byte, kLengthBytes> prefix{};
  const auto have = std::span(prefix).first(static_cast<std::size_t>(std::min(file_bytes, kLengthBytes)));
  file.read_at(0, have);
  std::string text(static_cast<std::size_t>(safetensors_header_bytes(have, file_bytes, path.string())), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

SafetensorsFile::SafetensorsFile(const fs::path& path)
    : SafetensorsFile(path, read_safetensors_header(path), File::open_read(path).size()) {}

SafetensorsFile::SafetensorsFile(const fs::path& path, std::string_view text, std::int64_t file_bytes)
    : path_(path), opened_(std::make_unique<Opened>()) {
  SafetensorsHeader header = parse_safetensors_header(text, file_bytes, origin());
  metadata_ = std::move(header.metadata);
  for (SafetensorsEntry& entry : header.entries) {
    const std::optional<DType> dtype = dtype_from_safetensors(entry.dtype);
    if (!dtype || entry.shape.size() > static_cast<std::size_t>(Shape::kMaxRank)) {
      unsupported_.push_back({entry.name, entry.dtype, entry.shape});
      continue;
    }
    tensors_.push_back({entry.name, *dtype, Shape(std::span<const std::int64_t>(entry.shape))});
    begin_.emplace(entry.name, entry.begin);
  }
}

void SafetensorsFile::read(const TensorInfo& tensor, std::int64_t offset, std::span<std::byte> to) const {
  const auto begin = begin_.find(tensor.name);
  require(begin != begin_.end(), "{} has no tensor {}", origin(), tensor.name);
  require(offset >= 0 && offset + static_cast<std::int64_t>(to.size()) <= tensor.bytes(),
          "{}: bytes [{}, {}) of {} bytes of {}", origin(), offset,
          offset + static_cast<std::int64_t>(to.size()), tensor.bytes(), tensor.name);
  file().read_at(begin->second + offset, to);
}

void SafetensorsFile::will_read_block(const TensorInfo& tensor, std::int64_t block) const {
  const auto begin = begin_.find(tensor.name);
  require(begin != begin_.end(), "{} has no tensor {}", origin(), tensor.name);
  file().will_read(begin->second + block * kBlockBytes, block_bytes(tensor, block));
}

const File& SafetensorsFile::file() const {
  std::call_once(opened_->once, [&] { opened_->file = File::open_read(path_); });
  return opened_->file;
}

// --- Writing ---

SafetensorsLayout layout_safetensors(std::vector<TensorInfo> tensors) {
  const auto order = [](const TensorInfo& tensor) {
    const auto* word = find_word(safetensors_dtype(tensor.dtype));
    return word - kWords.data();
  };
  std::sort(tensors.begin(), tensors.end(), [&](const TensorInfo& a, const TensorInfo& b) {
    const auto order_a = order(a), order_b = order(b);
    return order_a != order_b ? order_a < order_b : a.name < b.name;
  });
  SafetensorsLayout layout;
  std::string json = R"({"__metadata__":{"format":"pt"})";
  std::int64_t at = 0;
  for (const TensorInfo& tensor : tensors) {
    require(tensor.name != "__metadata__" && layout.begin.emplace(tensor.name, at).second,
            "tensor {} twice in one file", tensor.name);
    json += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                        nlohmann::json(tensor.name).dump(), safetensors_dtype(tensor.dtype),
                        fmt::join(tensor.shape.extents(), ","), at, at + tensor.bytes());
    at += tensor.bytes();
  }
  json += '}';
  json.resize(round_up(json.size(), std::size_t{8}), ' ');
  const std::uint64_t length = json.size();
  layout.header.resize(kLengthBytes);
  std::memcpy(layout.header.data(), &length, sizeof length);
  layout.header += json;
  const auto data_begin = static_cast<std::int64_t>(layout.header.size());
  for (auto& [name, begin] : layout.begin) begin += data_begin;
  layout.file_bytes = data_begin + at;
  return layout;
}

SafetensorsWriter::SafetensorsWriter(const fs::path& path, const std::vector<TensorInfo>& tensors)
    : layout_(layout_safetensors(tensors)), file_(File::create(path)) {
  file_.reserve(layout_.file_bytes);
  file_.write_at(0, std::as_bytes(std::span(layout_.header)));
}

void SafetensorsWriter::write(const TensorInfo& tensor, std::int64_t offset,
                              std::span<const std::byte> bytes) {
  const auto begin = layout_.begin.find(tensor.name);
  require(begin != layout_.begin.end(), "{} has no place for tensor {}", file_.path().string(), tensor.name);
  require(offset >= 0 && offset + static_cast<std::int64_t>(bytes.size()) <= tensor.bytes(),
          "bytes [{}, {}) of {} bytes of {}", offset, offset + static_cast<std::int64_t>(bytes.size()),
          tensor.bytes(), tensor.name);
  file_.write_at(begin->second + offset, bytes);
}

}  // namespace verne
