#include "verne/checkpoint/inspect.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <ostream>

#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "verne/checkpoint/reader.hpp"
#include "verne/io/blocks.hpp"
#include "verne/io/convert.hpp"
#include "verne/io/hf_folder.hpp"
#include "verne/io/shard.hpp"

namespace verne {
namespace fs = std::filesystem;
namespace {

template <class... Args>
void print(std::ostream& out, fmt::format_string<Args...> format, Args&&... args) {
  out << message_text(format, std::forward<Args>(args)...);
}

std::string size_text(std::int64_t bytes) {
  if (bytes < 10'000) return fmt::format("{} bytes", bytes);
  if (bytes < 10'000'000) return fmt::format("{:.1f} kB", static_cast<double>(bytes) / 1e3);
  if (bytes < 10'000'000'000) return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
  return fmt::format("{:.2f} GB", static_cast<double>(bytes) / 1e9);
}

enum class Kind { checkpoint, shard, folder, safetensors };

Kind kind_of(const fs::path& path) {
  if (fs::is_directory(path)) return Kind::folder;
  if (!fs::exists(path)) throw_user_error("{}: there is no such file or folder", path.string());
  if (path.extension() == ".safetensors") return Kind::safetensors;
  if (is_checkpoint(path)) return Kind::checkpoint;
  if (is_token_shard(path)) return Kind::shard;
  throw_user_error("{}: neither a checkpoint, a token shard, a Hugging Face folder nor a safetensors file",
                   path.string());
}

/// Tensors of whatever has them, and what keeps them open.
struct Weights {
  std::unique_ptr<CheckpointReader> checkpoint;
  std::unique_ptr<TensorSource> files;
  const TensorSource& model() const { return files ? *files : checkpoint->tensors(CheckpointGroup::model); }
};

Weights open_weights(const fs::path& path, Kind kind) {
  Weights weights;
  switch (kind) {
    case Kind::checkpoint:
      weights.checkpoint = std::make_unique<CheckpointReader>(path);
      break;
    case Kind::folder:
      weights.files = std::make_unique<HfFolder>(path);
      break;
    case Kind::safetensors:
      weights.files = std::make_unique<SafetensorsFile>(path);
      break;
    case Kind::shard:
      throw_user_error("{}: a token shard, which has no tensors", path.string());
  }
  return weights;
}

void show_tensors(const TensorSource& source, const std::string& head, std::ostream& out) {
  std::int64_t elements = 0, bytes = 0;
  std::size_t width = 0;
  for (const TensorInfo& tensor : source.tensors()) {
    elements += tensor.shape.count();
    bytes += tensor.bytes();
    width = std::max(width, tensor.name.size());
  }
  print(out, "{}: {} tensors, {} elements, {}\n", head, source.tensors().size(), elements, size_text(bytes));
  for (const TensorInfo& tensor : source.tensors()) {
    print(out, "  {:<{}}  {:<5} {}\n", tensor.name, width, name(tensor.dtype), tensor.shape.text());
  }
  for (const UnsupportedTensor& tensor : source.unsupported())
    print(out, "  not readable: {}\n", tensor.text());
}

void show_checkpoint(const fs::path& path, InspectVerify verify, std::ostream& out) {
  const CheckpointReader reader(path);
  print(out, "{}: checkpoint, {}, digest {}\n", path.string(),
        size_text(static_cast<std::int64_t>(fs::file_size(path))), hex64(reader.digest()));
  print(out, "step {}, {}\n", reader.state().step(), reader.has_optimizer() ? "resumable" : "weights only");
  print(
      out, "state:\n{}\n",
      OwnLines{reader.state().values.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace)});
  print(out, "config.json: {}\n", size_text(static_cast<std::int64_t>(reader.side_files().config.size())));
  for (const auto& [name, content] : reader.side_files().tokenizer) {
    print(out, "{}: {}\n", name, size_text(static_cast<std::int64_t>(content.size())));
  }
  for (const CheckpointGroup group : kAllCheckpointGroups) {
    const TensorSource& source = reader.tensors(group);
    if (!source.tensors().empty()) show_tensors(source, std::string(path_of(group)), out);
  }
  for (const FrozenTensor& tensor : reader.frozen()) {
    print(out, "frozen: {} with checksum {} of {}\n", tensor.name, hex64(tensor.checksum), tensor.source);
  }
  if (verify == InspectVerify::yes) {
    verify_checkpoint(reader);
    print(out, "verified: every checksum agrees\n");
  }
}

/// Reads a shard in pieces and calls `visit(first document, tokens, mask)` for runs of documents.
template <class Visit>
void for_documents(const ShardReader& shard, const Visit& visit) {
  std::vector<std::uint32_t> tokens;
  std::vector<std::uint8_t> mask;
  const auto offsets = shard.offsets();
  for (std::int64_t document = 0; document < shard.documents(); ++document) {
    const auto i = static_cast<std::size_t>(document);
    tokens.resize(offsets[i + 1] - offsets[i]);
    mask.resize(tokens.size());
    shard.read_tokens(static_cast<std::int64_t>(offsets[i]), tokens);
    shard.read_loss_mask(static_cast<std::int64_t>(offsets[i]), mask);
    visit(document, tokens, mask);
  }
}

void show_shard(const fs::path& path, InspectVerify verify, std::ostream& out) {
  const ShardReader shard(path);
  print(out, "{}: token shard, {}\n", path.string(),
        size_text(static_cast<std::int64_t>(fs::file_size(path))));
  print(out, "documents {}, tokens {}, trained tokens {}\n", shard.documents(), shard.tokens(),
        shard.trained_tokens());
  print(out, "template {}, tokenizer {}\n", shard.info().chat_template,
        shard.info().tokenizer_hash.empty() ? "none" : shard.info().tokenizer_hash);
  for (const auto& [name, value] : shard.info().attributes) print(out, "{}: {}\n", name, value);
  for (const auto& [name, content] : shard.tokenizer_files()) {
    print(out, "{}: {}\n", name, size_text(static_cast<std::int64_t>(content.size())));
  }
  if (shard.documents() > 0) {
    std::vector<std::uint64_t> lengths;
    const auto offsets = shard.offsets();
    for (std::size_t i = 1; i < offsets.size(); ++i) lengths.push_back(offsets[i] - offsets[i - 1]);
    std::sort(lengths.begin(), lengths.end());
    print(out, "document lengths: shortest {}, median {}, longest {}\n", lengths.front(),
          lengths[lengths.size() / 2], lengths.back());
  }
  if (verify == InspectVerify::no) return;
  std::int64_t trained = 0;
  for_documents(shard, [&](std::int64_t document, const auto&, const auto& mask) {
    if (!mask.empty() && mask[0] != 0) {
      throw_user_error("{}: token 0 of document {} is masked as a target, which it cannot be", path.string(),
                       document);
    }
    trained += std::count(mask.begin(), mask.end(), std::uint8_t{1});
  });
  if (trained != shard.trained_tokens()) {
    throw_user_error("{}: the loss masks count {} tokens, the attribute says {}", path.string(), trained,
                     shard.trained_tokens());
  }
  constexpr std::int64_t kBatch = 4096;
  for (std::int64_t first = 0; first < shard.documents(); first += kBatch) {
    shard.metadata(first, std::min(kBatch, shard.documents() - first));
  }
  print(out, "verified: offsets, masks and counts agree\n");
}

struct Difference {
  double absolute = 0, relative = 0;
};

void widen(DType type, std::span<const std::byte> from, std::vector<double>& to) {
  const auto bytes = std::as_writable_bytes(std::span(to));
  if (convertible(type, DType::f64)) {
    convert(type, from, DType::f64, bytes);
    return;
  }
  throw_user_error("tensors of {} are not compared", name(type));
}

/// Largest |a − b| and |a − b| / max(|a|, |b|) over the elements; two NaN are equal, one is infinitely far.
Difference difference(const TensorSource& left, const TensorInfo& a, const TensorSource& right,
                      const TensorInfo& b) {
  constexpr std::int64_t kElements = std::int64_t{1} << 20;
  Difference worst;
  std::vector<std::byte> bytes;
  std::vector<double> x, y;
  const auto read = [&](const TensorSource& source, const TensorInfo& tensor, std::int64_t first,
                        std::vector<double>& to) {
    bytes.resize(static_cast<std::size_t>(bytes_of(tensor.dtype, static_cast<std::int64_t>(to.size()))));
    source.read(tensor, bytes_of(tensor.dtype, first), bytes);
    widen(tensor.dtype, bytes, to);
  };
  for (std::int64_t first = 0; first < a.shape.count(); first += kElements) {
    x.resize(static_cast<std::size_t>(std::min(kElements, a.shape.count() - first)));
    y.resize(x.size());
    read(left, a, first, x);
    read(right, b, first, y);
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (x[i] == y[i] || (std::isnan(x[i]) && std::isnan(y[i]))) continue;
      const double absolute = std::isnan(x[i] - y[i]) ? INFINITY : std::abs(x[i] - y[i]);
      const double scale = std::max(std::abs(x[i]), std::abs(y[i]));
      worst.absolute = std::max(worst.absolute, absolute);
      worst.relative = std::max(worst.relative, std::isfinite(absolute) ? absolute / scale : INFINITY);
    }
  }
  return worst;
}

Comparison compare_tensors(const TensorSource& left, const TensorSource& right, std::string_view head,
                           std::ostream& out) {
  std::map<std::string_view, std::array<const TensorInfo*, 2>> both;
  for (const TensorInfo& tensor : left.tensors()) both[tensor.name][0] = &tensor;
  for (const TensorInfo& tensor : right.tensors()) both[tensor.name][1] = &tensor;
  std::int64_t equal = 0;
  Difference worst;
  Comparison result = Comparison::equal;
  for (const auto& [name, tensors] : both) {
    const auto [a, b] = tensors;
    const std::string where = fmt::format("{}/{}", head, name);
    if (a == nullptr || b == nullptr) {
      print(out, "{}: only in {}\n", where, a != nullptr ? left.origin() : right.origin());
      result = Comparison::different;
    } else if (a->shape != b->shape) {
      print(out, "{}: shapes {} and {}\n", where, a->shape.text(), b->shape.text());
      result = Comparison::different;
    } else {
      const Difference found = difference(left, *a, right, *b);
      if (a->dtype != b->dtype)
        print(out, "{}: dtypes {} and {}\n", where, verne::name(a->dtype), verne::name(b->dtype));
      if (found.absolute == 0) {
        ++equal;
        continue;
      }
      print(out, "{}: largest difference {:.6g}, relative {:.6g}\n", where, found.absolute, found.relative);
      worst = {std::max(worst.absolute, found.absolute), std::max(worst.relative, found.relative)};
      result = Comparison::different;
    }
  }
  print(out, "{}: {} of {} tensors equal, largest difference {:.6g}, relative {:.6g}\n", head, equal,
        both.size(), worst.absolute, worst.relative);
  return result;
}

Comparison compare_shards(const fs::path& left_path, const fs::path& right_path, std::ostream& out) {
  constexpr int kShown = 10;
  const ShardReader left(left_path), right(right_path);
  int different = 0;
  const auto report = [&](const std::string& text) {
    if (different++ < kShown) print(out, "{}\n", text);
  };
  if (left.info().tokenizer_hash != right.info().tokenizer_hash) report("made by different tokenizers");
  if (left.info().chat_template != right.info().chat_template) {
    report(fmt::format("templates {} and {}", left.info().chat_template, right.info().chat_template));
  }
  if (left.documents() != right.documents())
    report(fmt::format("{} and {} documents", left.documents(), right.documents()));
  std::vector<std::uint32_t> tokens;
  std::vector<std::uint8_t> mask;
  for_documents(left, [&](std::int64_t document, const auto& left_tokens, const auto& left_mask) {
    if (document >= right.documents()) return;
    const auto i = static_cast<std::size_t>(document);
    const auto first = right.offsets()[i];
    tokens.resize(right.offsets()[i + 1] - first);
    mask.resize(tokens.size());
    right.read_tokens(static_cast<std::int64_t>(first), tokens);
    right.read_loss_mask(static_cast<std::int64_t>(first), mask);
    if (tokens != left_tokens) {
      report(fmt::format("document {}: tokens differ ({} and {} of them)", document, left_tokens.size(),
                         tokens.size()));
    } else if (mask != left_mask) {
      report(fmt::format("document {}: loss masks differ", document));
    } else if (left.metadata(document, 1) != right.metadata(document, 1)) {
      report(fmt::format("document {}: metadata differ", document));
    }
  });
  if (different > kShown) print(out, "... and {} more\n", different - kShown);
  print(out, "{}\n", different == 0 ? "the shards are equal" : "the shards differ");
  return different == 0 ? Comparison::equal : Comparison::different;
}

}  // namespace

void inspect_show(const fs::path& path, InspectVerify verify, std::ostream& out) {
  const Kind kind = kind_of(path);
  if (kind == Kind::checkpoint) return show_checkpoint(path, verify, out);
  if (kind == Kind::shard) return show_shard(path, verify, out);
  const Weights weights = open_weights(path, kind);
  show_tensors(weights.model(), path.string(), out);
  if (verify == InspectVerify::no) return;
  std::vector<std::byte> bytes;
  for (const TensorInfo& tensor : weights.model().tensors()) {
    for (std::int64_t block = 0; block < block_count(tensor); ++block) {
      bytes.resize(static_cast<std::size_t>(block_bytes(tensor, block)));
      weights.model().read(tensor, block * kBlockBytes, bytes);
    }
  }
  print(out, "verified: headers are valid and every byte can be read (the format has no checksums)\n");
}

Comparison inspect_compare(const fs::path& left, const fs::path& right, std::ostream& out) {
  const Kind left_kind = kind_of(left), right_kind = kind_of(right);
  if (left_kind == Kind::shard && right_kind == Kind::shard) return compare_shards(left, right, out);
  const Weights a = open_weights(left, left_kind), b = open_weights(right, right_kind);
  Comparison result = compare_tensors(a.model(), b.model(), "/model", out);
  if (!a.checkpoint || !b.checkpoint || !a.checkpoint->has_optimizer() || !b.checkpoint->has_optimizer())
    return result;
  for (const CheckpointGroup group :
       {CheckpointGroup::master, CheckpointGroup::exp_avg, CheckpointGroup::exp_avg_sq}) {
    if (compare_tensors(a.checkpoint->tensors(group), b.checkpoint->tensors(group), path_of(group), out) ==
        Comparison::different) {
      result = Comparison::different;
    }
  }
  return result;
}

}  // namespace verne
