#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "verne/comm/host_group.hpp"
#include "verne/data/inputs.hpp"
#include "verne/data/show.hpp"
#include "verne/data/split.hpp"
#include "verne/text/chat_template.hpp"
#include "verne/text/tokenizer.hpp"

namespace verne {

struct PrepareSettings {
  std::vector<PrepareInput> inputs;
  std::filesystem::path output;  ///< folder; made with its parents

  /// A tokenizer.json or a folder with one; a config.json beside it gives the model family and its EOS.
  /// Empty: all records come tokenized.
  std::filesystem::path tokenizer;
  std::optional<Tokenizer> loaded_tokenizer;  ///< where `tokenizer` is empty: one that is in no folder
  std::string template_name = "auto";
  std::string model_type;                   ///< for `auto`; empty: of the config.json beside the tokenizer
  std::optional<TokenId> model_eos_id;      ///< absent: of that config.json
  std::optional<std::int64_t> vocab_size;   ///< bounds the ids of tokenized records; absent: the tokenizer's
  std::vector<std::string> special_tokens;  ///< added to the tokenizer
  TrainOn train_on = TrainOn::all;

  SplitShares split{0.9, 0.05, 0.05};
  std::string split_key;  ///< a number or an ISO 8601 text by which later records go to later parts; empty:
                          ///< the seed decides
  std::string input_key, output_key;  ///< other names for "input" and "output"
  std::int64_t limit =
      0;  ///< of the records to be split, and of each part that inputs name, the first so many; 0: all
  std::uint64_t seed = 0;

  std::int64_t show = 0;  ///< documents printed
  Marking marking = Marking::brackets;
};

struct PreparedPart {
  std::filesystem::path shard;
  std::int64_t records = 0, documents = 0, tokens = 0, trained_tokens = 0;
};
struct PreparedData {
  std::array<PreparedPart, 3> parts;      ///< indexed by Part
  std::string fingerprint;                ///< of inputs and settings
  std::vector<std::string> input_sha256;  ///< of each JSONL file, in input order
  std::vector<std::filesystem::path> input_files;
  enum class Made { now, before } made = Made::now;
  const PreparedPart& operator[](Part part) const { return parts[static_cast<std::size_t>(part)]; }
};

/// Whether shards in the output folder that were made of the same inputs with the same settings are taken as
/// they are.
enum class Reuse { no, yes };

/// JSONL → train.h5, validation.h5, test.h5 and certificate.json in settings.output. Collective: all ranks
/// tokenize, and the files are the same, byte for byte, for any number of ranks. Each file appears whole or
/// not at all, the certificate last. Rank 0 prints what was made, and samples, to `out`. An error on one rank
/// is thrown on all.
PreparedData prepare(const PrepareSettings& settings, const HostGroup& group, std::ostream& out,
                     Reuse reuse = Reuse::no);

}  // namespace verne
