#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "verne/data/dataset.hpp"
#include "verne/io/shard.hpp"
#include "verne/text/chat_template.hpp"

namespace verne::testing {

/// A shard of these documents, written by this process alone.
inline void write_shard(const std::filesystem::path& path, const std::vector<Document>& documents,
                        ShardInfo info = {}) {
  const HostGroup alone;
  ShardWriter writer(path, alone, std::move(info));
  std::int64_t number = 0;
  for (const Document& document : documents) {
    writer.append(document.tokens, document.loss_mask, "{\"n\":" + std::to_string(number++) + "}");
  }
  writer.finish();
}

inline std::vector<Document> read_shard(const std::filesystem::path& path) {
  const ShardReader reader(path);
  std::vector<Document> documents(static_cast<std::size_t>(reader.documents()));
  for (std::size_t i = 0; i < documents.size(); ++i) {
    documents[i].tokens.resize(reader.offsets()[i + 1] - reader.offsets()[i]);
    documents[i].loss_mask.resize(documents[i].tokens.size());
    reader.read_tokens(static_cast<std::int64_t>(reader.offsets()[i]), documents[i].tokens);
    reader.read_loss_mask(static_cast<std::int64_t>(reader.offsets()[i]), documents[i].loss_mask);
  }
  return documents;
}

inline TokenDataset open_dataset(const std::filesystem::path& shard, std::int64_t seq_length,
                                 Overlong overlong = Overlong::error) {
  return TokenDataset(std::span(&shard, 1), {.seq_length = seq_length, .overlong = overlong});
}

}  // namespace verne::testing
