#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "verne/data/batches.hpp"
#include "verne/host/layout.hpp"
#include "verne/host/model_source.hpp"
#include "verne/train/run_directory.hpp"

namespace verne {

/// What a run reads tokens from: shards as given, or shards made of JSONL in the run's own folder.
struct DataFiles {
  std::vector<std::filesystem::path> train, validation;
  std::vector<std::filesystem::path> sources;  ///< the JSONL and the tokenizer that such shards were made of
  std::optional<Tokenizer> tokenizer;          ///< that made the shards
  std::map<std::string, std::string> tokenizer_files;
  std::string chat_template;  ///< its name; empty where records came tokenized
};

/// Collective. Prepares JSONL first (and takes what an earlier start prepared of the same input).
DataFiles open_data_files(const Deck& deck, const ModelSource& model, const RunPaths& paths,
                          const HostGroup& world);

struct TrainingData {
  std::optional<Batches> train, validation;
};
/// Local. Throws UserError naming the shard.
TrainingData open_batches(const Deck& deck, const DataFiles& files, const DeckLayout& layout,
                          std::int64_t vocab_size);

}  // namespace verne
