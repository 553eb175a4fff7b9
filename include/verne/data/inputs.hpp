#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "verne/comm/host_group.hpp"
#include "verne/data/split.hpp"
#include "verne/io/jsonl.hpp"

namespace verne {

/// A JSONL file, or a folder with training.jsonl, validation.jsonl and test.jsonl (at least one of them).
struct PrepareInput {
  std::filesystem::path path;
  std::optional<Part> part;  ///< of a file: where its records go; absent: they are split
};

/// The records of one kind of input have indices of their own, from 0 in input order: those that are split,
/// and those of each part that inputs name.
inline constexpr std::size_t kStreams = 4;
inline std::size_t stream_of(std::optional<Part> part) {
  return part ? static_cast<std::size_t>(*part) : 3;
}

/// The JSONL files of a run in input order, and the share of this rank: the concatenated bytes are cut into
/// as many runs of whole lines as there are ranks, so that rank order is input order.
class InputFiles {
 public:
  struct Source {
    JsonlFile file;
    std::optional<Part> part;
  };
  struct Piece {
    std::size_t source = 0;
    ByteRange range;
  };

  /// Local. UserErrors name the file or folder.
  InputFiles(std::span<const PrepareInput> inputs, int rank, int ranks);

  std::span<const Source> sources() const { return sources_; }
  std::span<const Piece> pieces() const { return pieces_; }  ///< this rank's, in order
  std::int64_t bytes() const { return bytes_; }              ///< of this rank's pieces
  std::int64_t total_bytes() const;

  /// Calls visit(source, line) for every line of this rank, in order, until it returns false.
  template <class Visit>
  void for_each_line(const Visit& visit) const {
    for (const Piece& piece : pieces_) {
      const Source& source = sources_[piece.source];
      JsonlFile::Reader reader = source.file.lines(piece.range);
      while (const auto line = reader.next()) {
        if (!visit(source, *line)) return;
      }
    }
  }

 private:
  std::vector<Source> sources_;
  std::vector<Piece> pieces_;
  std::int64_t bytes_ = 0;
};

/// Where this rank's records stand among those of all ranks.
struct StreamCounts {
  std::array<std::int64_t, kStreams> first{};  ///< index of this rank's first record of each stream
  std::array<std::int64_t, kStreams> total{};  ///< records of all ranks
};
/// Counts lines. Collective.
StreamCounts count_records(const InputFiles& inputs, const HostGroup& group);

/// SHA-256 of each source, in order; the ranks share the work. Collective.
std::vector<std::string> hash_sources(const InputFiles& inputs, const HostGroup& group);

}  // namespace verne
