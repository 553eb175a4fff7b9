#include "verne/io/shard.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/file.hpp"
#include "verne/io/hdf5.hpp"

namespace verne {
namespace {

constexpr std::string_view kFormat = "verne token shard";
constexpr std::array<std::string_view, 7> kOwnAttributes{
    "format", "format_version", "tokenizer_hash", "template", "documents", "tokens", "trained_tokens"};
constexpr std::int64_t kPieceBytes = std::int64_t{8} << 20;
/// Strings of one HDF5 call; fixed, so that the file does not depend on who had which document.
constexpr std::size_t kMetadataBatch = 4096;

/// A growing sequence of bytes: the newest in memory, the rest, once `spill` was called, in an unlinked file.
class Spool {
 public:
  void append(std::span<const std::byte> bytes) { memory_.insert(memory_.end(), bytes.begin(), bytes.end()); }
  std::int64_t size() const { return spilled_ + in_memory(); }
  std::int64_t in_memory() const { return static_cast<std::int64_t>(memory_.size()); }

  void spill(const std::filesystem::path& file) {
    if (!file_.is_open()) {
      file_ = File::create(file);
      std::filesystem::remove(file);
    }
    file_.write_at(spilled_, memory_);
    spilled_ += in_memory();
    memory_.clear();
  }

  void read(std::int64_t offset, std::span<std::byte> to) const {
    const std::int64_t wanted = static_cast<std::int64_t>(to.size());
    const std::int64_t from_file = std::clamp<std::int64_t>(spilled_ - offset, 0, wanted);
    if (from_file > 0) file_.read_at(offset, to.first(static_cast<std::size_t>(from_file)));
    if (from_file < wanted) {
      std::memcpy(to.data() + from_file, memory_.data() + (offset + from_file - spilled_),
                  static_cast<std::size_t>(wanted - from_file));
    }
  }

  /// Copies everything to `file` from byte `begin`.
  void copy_to(const File& file, std::int64_t begin) const {
    std::vector<std::byte> piece;
    for (std::int64_t at = 0; at < spilled_; at += kPieceBytes) {
      piece.resize(static_cast<std::size_t>(std::min(kPieceBytes, spilled_ - at)));
      read(at, piece);
      file.write_at(begin + at, piece);
    }
    if (!memory_.empty()) file.write_at(begin + spilled_, memory_);
  }

 private:
  std::vector<std::byte> memory_;
  File file_;
  std::int64_t spilled_ = 0;
};

/// Takes a rank's stream of (u32 length, bytes) in any pieces and writes whole batches of strings.
class MetadataWriter {
 public:
  explicit MetadataWriter(Hdf5Strings strings) : strings_(std::move(strings)) {}

  void add(std::span<const std::byte> piece) {
    pending_.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    std::size_t at = 0;
    for (std::uint32_t length = 0; pending_.size() - at >= sizeof length; at += sizeof length + length) {
      std::memcpy(&length, pending_.data() + at, sizeof length);
      if (pending_.size() - at - sizeof length < length) break;
      batch_.emplace_back(pending_, at + sizeof length, length);
      if (batch_.size() == kMetadataBatch) flush();
    }
    pending_.erase(0, at);
  }
  void flush() {
    strings_.write(written_, batch_);
    written_ += static_cast<std::int64_t>(batch_.size());
    batch_.clear();
  }
  std::int64_t written() const { return written_; }

 private:
  Hdf5Strings strings_;
  std::string pending_;
  std::vector<std::string> batch_;
  std::int64_t written_ = 0;
};

/// What every rank must know to write its share.
struct Place {
  std::int64_t tokens = 0, mask = 0, offsets = 0;  ///< bytes in the file; -1 where there is nothing to write
};

std::int64_t sum_before(const std::vector<std::int64_t>& values, int rank) {
  std::int64_t sum = 0;
  for (int i = 0; i < rank; ++i) sum += values[static_cast<std::size_t>(i)];
  return sum;
}

}  // namespace

struct ShardWriter::State {
  std::filesystem::path path;
  const HostGroup& group;
  ShardInfo info;
  std::int64_t memory_limit_bytes;
  Spool tokens, mask, ends, metadata;  ///< ends: where each document ends, counted in this rank's tokens
  Counts counts;

  void spill_if_large() {
    const std::array spools{&tokens, &mask, &ends, &metadata};
    std::int64_t held = 0;
    for (const Spool* spool : spools) held += spool->in_memory();
    if (held <= memory_limit_bytes) return;
    for (std::size_t i = 0; i < spools.size(); ++i) {
      spools[i]->spill(path.parent_path() / fmt::format(".{}.spool{}.{}.{}", path.filename().string(), i,
                                                        group.rank(), ::getpid()));
    }
  }
};

ShardWriter::ShardWriter(std::filesystem::path path, const HostGroup& group, ShardInfo info,
                         std::int64_t memory_limit_bytes)
    : state_(new State{
          std::filesystem::absolute(path), group, std::move(info), memory_limit_bytes, {}, {}, {}, {}, {}}) {
  for (const auto& [key, value] : state_->info.attributes) {
    require(std::find(kOwnAttributes.begin(), kOwnAttributes.end(), key) == kOwnAttributes.end(),
            "{} is an attribute of the shard format", key);
  }
  agree_after(group, [&] { make_directories(state_->path.parent_path()); });
}
ShardWriter::~ShardWriter() = default;
ShardWriter::ShardWriter(ShardWriter&&) noexcept = default;
const ShardWriter::Counts& ShardWriter::counts() const {
  return state_->counts;
}

void ShardWriter::append(std::span<const std::uint32_t> tokens, std::span<const std::uint8_t> loss_mask,
                         std::string_view metadata) {
  require(tokens.size() == loss_mask.size(), "{} tokens with a loss mask of {}", tokens.size(),
          loss_mask.size());
  require(metadata.size() < std::numeric_limits<std::uint32_t>::max(), "metadata of {} bytes",
          metadata.size());
  require(metadata.find('\0') == std::string_view::npos, "metadata of a document holds a NUL byte");
  State& state = *state_;
  std::int64_t trained = 0;
  std::uint8_t bits = 0;
  for (const std::uint8_t value : loss_mask) {
    bits |= value;
    trained += value;
  }
  require(bits <= 1, "a loss mask with other values than 0 and 1");
  state.tokens.append(std::as_bytes(tokens));
  state.mask.append(std::as_bytes(loss_mask));
  state.counts.documents += 1;
  state.counts.tokens += static_cast<std::int64_t>(tokens.size());
  state.counts.trained_tokens += trained;
  const auto end = static_cast<std::uint64_t>(state.counts.tokens);
  state.ends.append(std::as_bytes(std::span(&end, 1)));
  const auto length = static_cast<std::uint32_t>(metadata.size());
  state.metadata.append(std::as_bytes(std::span(&length, 1)));
  state.metadata.append(std::as_bytes(std::span(metadata)));
  state.spill_if_large();
}

void ShardWriter::set_chat_template(std::string name) {
  state_->info.chat_template = std::move(name);
}

ShardWriter::Counts ShardWriter::finish() {
  State& state = *state_;
  const HostGroup& group = state.group;
  const auto documents = group.all_gather(state.counts.documents),
             tokens = group.all_gather(state.counts.tokens),
             trained = group.all_gather(state.counts.trained_tokens),
             bytes = group.all_gather(state.metadata.size());
  const Counts total{sum_before(documents, group.size()), sum_before(tokens, group.size()),
                     sum_before(trained, group.size())};

  // Rank 0 lays the file out and writes all but the long arrays.
  std::unique_ptr<AtomicFile> aside;
  std::optional<Hdf5File> file;
  std::optional<MetadataWriter> metadata;
  Place place;
  agree_after(group, [&] {
    if (group.rank() != 0) return;
    aside = std::make_unique<AtomicFile>(state.path);
    std::int64_t expected_bytes =
        total.tokens * 5 + total.documents * (8 + 48) + sum_before(bytes, group.size());
    for (const auto& [name, content] : state.info.tokenizer_files) {
      expected_bytes += static_cast<std::int64_t>(content.size()) + 4096;
    }
    file = Hdf5File::create(aside->temporary(), expected_bytes + 65'536);
    const std::array token_extents{total.tokens}, offset_extents{total.documents + 1};
    place.tokens = file->create_dataset("/tokens", Hdf5Type::u32, token_extents).file_offset();
    place.mask = file->create_dataset("/loss_mask", Hdf5Type::u8, token_extents).file_offset();
    place.offsets = file->create_dataset("/document_offsets", Hdf5Type::u64, offset_extents).file_offset();
    metadata.emplace(file->create_strings("/metadata", total.documents));
    file->create_group("/tokenizer");
    for (const auto& [name, content] : state.info.tokenizer_files)
      file->write_bytes("/tokenizer/" + name, content);
    file->write_attribute("/", "format", kFormat);
    file->write_attribute("/", "format_version", kShardFormatVersion);
    file->write_attribute("/", "tokenizer_hash", state.info.tokenizer_hash);
    file->write_attribute("/", "template", state.info.chat_template);
    file->write_attribute("/", "documents", total.documents);
    file->write_attribute("/", "tokens", total.tokens);
    file->write_attribute("/", "trained_tokens", total.trained_tokens);
    for (const auto& [key, value] : state.info.attributes) file->write_attribute("/", key, value);
  });

  // Metadata passes through rank 0 in pieces, rank by rank.
  std::exception_ptr failure;
  const auto attempt = [&](const auto& work) {
    if (failure) return;
    try {
      work();
    } catch (...) {
      failure = std::current_exception();
    }
  };
  std::vector<std::byte> piece;
  for (int sender = 0; sender < group.size(); ++sender) {
    const std::int64_t size = bytes[static_cast<std::size_t>(sender)];
    for (std::int64_t at = 0; at < size; at += kPieceBytes) {
      piece.assign(group.rank() == sender ? static_cast<std::size_t>(std::min(kPieceBytes, size - at)) : 0,
                   {});
      if (group.rank() == sender) attempt([&] { state.metadata.read(at, piece); });
      if (sender != 0) {
        std::vector<std::vector<std::byte>> to(static_cast<std::size_t>(group.size()));
        to[0] = std::move(piece);
        piece = std::move(group.all_to_all(to)[static_cast<std::size_t>(sender)]);
      }
      if (group.rank() == 0) attempt([&] { metadata->add(piece); });
    }
  }
  if (group.rank() == 0) {
    attempt([&] {
      metadata->flush();
      require(metadata->written() == total.documents, "{} of {} metadata written", metadata->written(),
              total.documents);
      metadata.reset();
      file->close();
      aside->file().reserve(aside->file().size());
    });
  }
  agree(group, failure);

  // Every rank writes its share of the long arrays at its place.
  const std::string temporary = group.broadcast_text(aside ? aside->temporary().string() : "", 0);
  group.broadcast(std::as_writable_bytes(std::span(&place, 1)), 0);
  agree_after(group, [&] {
    const File out = File::open_write(temporary);
    const std::int64_t first_token = sum_before(tokens, group.rank()),
                       first = sum_before(documents, group.rank());
    if (state.counts.tokens > 0) {
      state.tokens.copy_to(out, place.tokens + first_token * 4);
      state.mask.copy_to(out, place.mask + first_token);
    }
    if (group.rank() == 0) out.write_at(place.offsets, std::as_bytes(std::span<const std::uint64_t>({0})));
    std::vector<std::uint64_t> ends;
    for (std::int64_t at = 0; at < state.counts.documents; at += kPieceBytes / 8) {
      ends.resize(static_cast<std::size_t>(std::min(kPieceBytes / 8, state.counts.documents - at)));
      state.ends.read(at * 8, std::as_writable_bytes(std::span(ends)));
      for (std::uint64_t& end : ends) end += static_cast<std::uint64_t>(first_token);
      out.write_at(place.offsets + (1 + first + at) * 8, std::as_bytes(std::span(ends)));
    }
    out.sync();
  });
  agree_after(group, [&] {
    if (aside) aside->publish();
  });
  return total;
}

struct ShardReader::State {
  std::filesystem::path path;
  Hdf5File hdf5;
  File file;
  ShardInfo info;
  std::vector<std::uint64_t> offsets;
  std::int64_t documents = 0, tokens = 0, trained_tokens = 0;
  std::int64_t tokens_at = 0, mask_at = 0;

  State(const std::filesystem::path& shard)
      : path(shard), hdf5(Hdf5File::open(shard)), file(File::open_read(shard)) {}

  /// Where a one-dimensional array of `type` with `count` elements lies; it must lie within the file, in one
  /// piece.
  std::int64_t locate(const std::string& name, Hdf5Type type, std::int64_t count) const {
    const Hdf5Dataset data = hdf5.dataset(name);
    if (data.type() != type || data.extents().size() != 1) {
      throw_user_error("{}: {} must be a one-dimensional array of {}", path.string(), name,
                       verne::name(type));
    }
    if (data.count() != count) {
      throw_user_error("{}: {} has {} elements, {} expected", path.string(), name, data.count(), count);
    }
    if (count == 0) return 0;
    const std::int64_t at = data.file_offset();
    if (at < 0) {
      throw_user_error("{}: {} is not stored in one piece; `h5repack -l CONTI` makes it so", path.string(),
                       name);
    }
    const auto end = checked_add(at, data.bytes());
    if (!end || *end > file.size())
      throw_user_error("{}: {} reaches past the end of the file", path.string(), name);
    return at;
  }

  void read_offsets() {
    const std::int64_t at = locate("/document_offsets", Hdf5Type::u64, documents + 1);
    offsets.resize(static_cast<std::size_t>(documents + 1));
    file.read_at(at, std::as_writable_bytes(std::span(offsets)));
    if (offsets.front() != 0)
      throw_user_error("{}: /document_offsets begins with {}, not 0", path.string(), offsets.front());
    const auto fall = std::adjacent_find(offsets.begin(), offsets.end(), std::greater<>{});
    if (fall != offsets.end()) {
      throw_user_error("{}: /document_offsets falls from {} to {} at document {}", path.string(), *fall,
                       *(fall + 1), fall - offsets.begin());
    }
    if (offsets.back() != static_cast<std::uint64_t>(tokens)) {
      throw_user_error("{}: /document_offsets ends with {}, but there are {} tokens", path.string(),
                       offsets.back(), tokens);
    }
  }
};

ShardReader::ShardReader(std::filesystem::path path,
                         const std::optional<std::string>& expected_tokenizer_hash)
    : state_(new State(path)) {
  State& state = *state_;
  const std::string where = path.string();
  const Hdf5File& file = state.hdf5;
  if (!file.has_attribute("/", "format") || file.text_attribute("/", "format") != kFormat) {
    throw_user_error("{}: it is an HDF5 file, but not a token shard; `verne prepare` makes them", where);
  }
  const std::int64_t version = file.integer_attribute("/", "format_version");
  if (version != kShardFormatVersion) {
    throw_user_error("{}: token shard of format version {}, this program reads version {}; prepare it again",
                     where, version, kShardFormatVersion);
  }
  state.info.tokenizer_hash = file.text_attribute("/", "tokenizer_hash");
  state.info.chat_template = file.text_attribute("/", "template");
  if (expected_tokenizer_hash && !state.info.tokenizer_hash.empty() &&
      *expected_tokenizer_hash != state.info.tokenizer_hash) {
    throw_user_error(
        "{}: this shard was made by another tokenizer (hash {}, the model's is {}); prepare it again with "
        "the model's "
        "tokenizer",
        where, state.info.tokenizer_hash, *expected_tokenizer_hash);
  }
  for (const std::string& key : file.list_attributes("/")) {
    if (std::find(kOwnAttributes.begin(), kOwnAttributes.end(), key) != kOwnAttributes.end()) continue;
    state.info.attributes[key] = file.text_attribute("/", key);
  }
  state.documents = file.integer_attribute("/", "documents");
  state.tokens = file.integer_attribute("/", "tokens");
  state.trained_tokens = file.integer_attribute("/", "trained_tokens");
  const std::int64_t limit = state.file.size();
  if (state.documents < 0 || state.documents > limit || state.tokens < 0 || state.tokens > limit) {
    throw_user_error("{}: {} documents and {} tokens cannot be in a file of {} bytes", where, state.documents,
                     state.tokens, limit);
  }
  if (state.trained_tokens < 0 || state.trained_tokens > state.tokens) {
    throw_user_error("{}: {} trained tokens of {}", where, state.trained_tokens, state.tokens);
  }
  state.tokens_at = state.locate("/tokens", Hdf5Type::u32, state.tokens);
  state.mask_at = state.locate("/loss_mask", Hdf5Type::u8, state.tokens);
  state.read_offsets();
  if (const std::int64_t count = file.strings("/metadata").count(); count != state.documents) {
    throw_user_error("{}: /metadata has {} strings for {} documents", where, count, state.documents);
  }
}
ShardReader::~ShardReader() = default;
ShardReader::ShardReader(ShardReader&&) noexcept = default;

const std::filesystem::path& ShardReader::path() const {
  return state_->path;
}
const ShardInfo& ShardReader::info() const {
  return state_->info;
}
std::int64_t ShardReader::documents() const {
  return state_->documents;
}
std::int64_t ShardReader::tokens() const {
  return state_->tokens;
}
std::int64_t ShardReader::trained_tokens() const {
  return state_->trained_tokens;
}
std::span<const std::uint64_t> ShardReader::offsets() const {
  return state_->offsets;
}

std::map<std::string, std::string> ShardReader::tokenizer_files() const {
  std::map<std::string, std::string> files;
  for (const std::string& name : state_->hdf5.list("/tokenizer"))
    files[name] = state_->hdf5.read_bytes("/tokenizer/" + name);
  return files;
}

void ShardReader::read_tokens(std::int64_t first, std::span<std::uint32_t> to) const {
  const auto count = static_cast<std::int64_t>(to.size());
  require(first >= 0 && first <= state_->tokens - count, "tokens [{}, +{}) of {}", first, count,
          state_->tokens);
  if (count > 0) state_->file.read_at(state_->tokens_at + first * 4, std::as_writable_bytes(to));
}

void ShardReader::read_loss_mask(std::int64_t first, std::span<std::uint8_t> to) const {
  const auto count = static_cast<std::int64_t>(to.size());
  require(first >= 0 && first <= state_->tokens - count, "loss mask [{}, +{}) of {}", first, count,
          state_->tokens);
  if (count == 0) return;
  state_->file.read_at(state_->mask_at + first, std::as_writable_bytes(to));
  const auto wrong = std::find_if(to.begin(), to.end(), [](std::uint8_t value) { return value > 1; });
  if (wrong != to.end()) {
    throw_user_error("{}: /loss_mask holds {} at token {}; only 0 and 1 mean something",
                     state_->path.string(), *wrong, first + (wrong - to.begin()));
  }
}

std::vector<std::string> ShardReader::metadata(std::int64_t first, std::int64_t count) const {
  return state_->hdf5.strings("/metadata").read(first, count);
}

bool is_token_shard(const std::filesystem::path& path) {
  try {
    const Hdf5File file = Hdf5File::open(path);
    return file.has_attribute("/", "format") && file.text_attribute("/", "format") == kFormat;
  } catch (const UserError&) {
    return false;
  }
}

}  // namespace verne
