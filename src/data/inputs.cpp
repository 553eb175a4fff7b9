#include "verne/data/inputs.hpp"

#include <algorithm>
#include <string_view>
#include <system_error>
#include <utility>

#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "verne/comm/agree.hpp"

namespace verne {
namespace {

constexpr std::int64_t kPiecesARank = 16;

std::vector<PrepareInput> files_of(const PrepareInput& input) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(input.path, ignored)) return {input};
  constexpr std::array<std::string_view, 3> kNames{"training.jsonl", "validation.jsonl", "test.jsonl"};
  std::vector<PrepareInput> files;
  for (const Part part : kParts) {
    const std::filesystem::path file = input.path / kNames[static_cast<std::size_t>(part)];
    if (input.part && *input.part != part) continue;
    if (std::filesystem::exists(file, ignored)) files.push_back({file, part});
  }
  require_user(!files.empty(), "{}: a folder without {}; name a JSONL file, or a folder that has such files",
               input.path.string(),
               input.part ? kNames[static_cast<std::size_t>(*input.part)]
                          : "training.jsonl, validation.jsonl or test.jsonl");
  return files;
}

}  // namespace

InputFiles::InputFiles(std::span<const PrepareInput> inputs, int rank, int ranks) {
  require_user(!inputs.empty(), "no input; give prepare.input, JSONL files or folders of them");
  for (const PrepareInput& input : inputs) {
    for (const PrepareInput& file : files_of(input)) sources_.push_back({JsonlFile(file.path), file.part});
  }
  const std::int64_t total = total_bytes();
  std::int64_t begin = 0;  // of the piece, in the concatenated bytes
  for (std::size_t source = 0; source < sources_.size(); ++source) {
    for (const ByteRange& range : sources_[source].file.split(ranks == 1 ? 1 : kPiecesARank * ranks)) {
      const auto owner =
          static_cast<std::int64_t>(static_cast<__int128>(begin) * ranks / std::max<std::int64_t>(total, 1));
      if (owner == rank && range.end > range.begin) {
        pieces_.push_back({source, range});
        bytes_ += range.end - range.begin;
      }
      begin += range.end - range.begin;
    }
  }
}

std::int64_t InputFiles::total_bytes() const {
  std::int64_t total = 0;
  for (const Source& source : sources_) total += source.file.size();
  return total;
}

StreamCounts count_records(const InputFiles& inputs, const HostGroup& group) {
  std::array<std::int64_t, kStreams> mine{};
  agree_after(group, [&] {
    inputs.for_each_line([&](const InputFiles::Source& source, const JsonlLine&) {
      ++mine[stream_of(source.part)];
      return true;
    });
  });
  StreamCounts counts;
  for (std::size_t stream = 0; stream < kStreams; ++stream) {
    const std::vector<std::int64_t> all = group.all_gather(mine[stream]);
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      if (static_cast<int>(rank) < group.rank()) counts.first[stream] += all[rank];
      counts.total[stream] += all[rank];
    }
  }
  return counts;
}

std::vector<std::string> hash_sources(const InputFiles& inputs, const HostGroup& group) {
  const std::span<const InputFiles::Source> sources = inputs.sources();
  const auto ranks = static_cast<std::size_t>(group.size()), rank = static_cast<std::size_t>(group.rank());
  constexpr std::size_t kDigits = 64;
  std::string mine;
  agree_after(group, [&] {
    for (std::size_t i = rank; i < sources.size(); i += ranks) mine += sha256_file(sources[i].file.path());
  });
  const std::vector<std::string> all = group.all_gather_text(mine);
  std::vector<std::string> hashes(sources.size());
  for (std::size_t i = 0; i < sources.size(); ++i)
    hashes[i] = all[i % ranks].substr(i / ranks * kDigits, kDigits);
  return hashes;
}

}  // namespace verne
