#include "verne/data/dataset.hpp"

#include <algorithm>

#include "verne/base/error.hpp"

namespace verne {
namespace {

/// Ones after the first entry.
std::int64_t count_targets(std::span<const std::uint8_t> loss_mask) {
  if (loss_mask.empty()) return 0;
  std::int64_t count = 0;
  for (const std::uint8_t counts : loss_mask.subspan(1)) count += counts;
  return count;
}

}  // namespace

KeptTokens truncate_document(std::span<const std::uint8_t> loss_mask, std::int64_t seq_length) {
  const auto length = static_cast<std::int64_t>(loss_mask.size());
  const std::int64_t excess = std::max<std::int64_t>(length - seq_length, 0);
  std::int64_t prompt = std::find(loss_mask.begin(), loss_mask.end(), 1) - loss_mask.begin();
  if (prompt <= 1 || prompt == length) prompt = 0;
  const std::int64_t first = std::min(excess, prompt);
  return {first, length - excess};
}

TokenDataset::TokenDataset(std::span<const std::filesystem::path> shards, const DatasetOptions& options)
    : options_(options) {
  require(options.seq_length > 0 && options.seq_length < (std::int64_t{1} << 31), "a sequence length of {}",
          options.seq_length);
  for (const std::filesystem::path& path : shards) {
    shards_.emplace_back(path, options.tokenizer_hash);
    const std::string& hash = shards_.back().info().tokenizer_hash;
    const std::string& first_hash = shards_.front().info().tokenizer_hash;
    require_user(hash == first_hash || hash.empty() || first_hash.empty(),
                 "{}: made with tokenizer {}, but {} with {}; prepare both with the same tokenizer",
                 path.string(), hash, shards_.front().path().string(), first_hash);
    add_shard(static_cast<std::int32_t>(shards_.size()) - 1);
  }
  require_user(
      options.overlong != Overlong::error || counts_.overlong == 0,
      "{}: {} of {} documents are longer than data.seq_length={} (the longest has {} tokens); choose "
      "data.overlong=truncate or data.overlong=drop, or a data.seq_length of at least {}",
      shards.empty() ? "" : shards.front().string(), counts_.overlong, counts_.documents, options.seq_length,
      counts_.longest, counts_.longest);
}

void TokenDataset::add_shard(std::int32_t shard) {
  constexpr std::int64_t kPieceTokens = std::int64_t{1} << 24;
  const ShardReader& reader = shards_[static_cast<std::size_t>(shard)];
  const std::span<const std::uint64_t> offsets = reader.offsets();
  std::vector<std::uint8_t> mask;
  const auto offset = [&](std::int64_t i) {
    return static_cast<std::int64_t>(offsets[static_cast<std::size_t>(i)]);
  };
  for (std::int64_t begin = 0; begin < reader.documents();) {
    std::int64_t end = begin + 1;
    while (end < reader.documents() && offset(end + 1) - offset(begin) <= kPieceTokens) ++end;
    mask.resize(static_cast<std::size_t>(offset(end) - offset(begin)));
    reader.read_loss_mask(offset(begin), mask);
    for (std::int64_t document = begin; document < end; ++document) {
      const auto first = static_cast<std::size_t>(offset(document) - offset(begin));
      const auto length = static_cast<std::size_t>(offset(document + 1) - offset(document));
      add_document(shard, document, std::span(mask).subspan(first, length));
    }
    begin = end;
  }
}

void TokenDataset::add_document(std::int32_t shard, std::int64_t document,
                                std::span<const std::uint8_t> loss_mask) {
  const auto length = static_cast<std::int64_t>(loss_mask.size());
  ++counts_.documents;
  counts_.longest = std::max(counts_.longest, length);
  if (length > options_.seq_length) {
    ++counts_.overlong;
    if (options_.overlong != Overlong::truncate) return;
  }
  const KeptTokens kept = truncate_document(loss_mask, options_.seq_length);
  const std::int64_t counted = count_targets(
      loss_mask.subspan(static_cast<std::size_t>(kept.first), static_cast<std::size_t>(kept.length)));
  if (counted == 0) {
    ++counts_.without_trained_token;
    return;
  }
  const std::span<const std::uint64_t> offsets = shards_[static_cast<std::size_t>(shard)].offsets();
  const auto first = static_cast<std::int64_t>(offsets[static_cast<std::size_t>(document)]);
  entries_.push_back({first + kept.first, document, static_cast<std::int32_t>(counted), shard});
  lengths_.push_back(static_cast<std::int32_t>(kept.length));
  ++counts_.kept;
  counts_.tokens += kept.length;
  counts_.counted_tokens += counted;
}

const TokenDataset::Entry& TokenDataset::entry(std::int64_t document) const {
  require(document >= 0 && document < size(), "document {} of {}", document, size());
  return entries_[static_cast<std::size_t>(document)];
}

std::int64_t TokenDataset::counted_tokens(std::int64_t document) const {
  return entry(document).counted;
}

void TokenDataset::read(std::int64_t document, std::span<TokenId> tokens,
                        std::span<std::uint8_t> loss_mask) const {
  const Entry& from = entry(document);
  const auto length = static_cast<std::size_t>(lengths_[static_cast<std::size_t>(document)]);
  require(tokens.size() == length && loss_mask.size() == length,
          "document {} has {} tokens, read into {} and {}", document, length, tokens.size(),
          loss_mask.size());
  const ShardReader& reader = shards_[static_cast<std::size_t>(from.shard)];
  reader.read_tokens(from.first_token, tokens);
  reader.read_loss_mask(from.first_token, loss_mask);
  loss_mask[0] = 0;
  if (!options_.vocab_size) return;
  const TokenId largest = *std::max_element(tokens.begin(), tokens.end());
  require_user(
      largest < *options_.vocab_size,
      "{}: document {} has token id {}, but the model's vocabulary ends at {}; prepare it with the model's "
      "tokenizer",
      reader.path().string(), from.document, largest, *options_.vocab_size - 1);
}

std::string TokenDataset::metadata(std::int64_t document) const {
  const Entry& from = entry(document);
  return shards_[static_cast<std::size_t>(from.shard)].metadata(from.document, 1).at(0);
}

std::string TokenDataset::summary() const {
  std::string result = fmt::format("{} documents, {} tokens, {} of them trained", counts_.kept,
                                   counts_.tokens, counts_.counted_tokens);
  if (counts_.overlong > 0) {
    result += fmt::format("; {} longer than {} tokens were {}", counts_.overlong, options_.seq_length,
                          options_.overlong == Overlong::truncate ? "truncated" : "dropped");
  }
  if (counts_.without_trained_token > 0) {
    result += fmt::format("; {} without a trained token were dropped", counts_.without_trained_token);
  }
  return result;
}

}  // namespace verne
