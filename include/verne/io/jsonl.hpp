#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "verne/io/file.hpp"

namespace verne {

/// A line that is not blank, without its line end (LF or CRLF). The text lives as long as its JsonlFile; at
/// least MappedFile::kPaddingBytes bytes after it may be read (what a SIMD parser needs).
struct JsonlLine {
  std::int64_t offset = 0;  ///< of its first byte in the file
  std::string_view text;
};

struct ByteRange {
  std::int64_t begin = 0, end = 0;
};

/// A JSONL file in memory: byte order mark, CRLF and blank lines accepted, the last line with or without line
/// end.
class JsonlFile {
 public:
  explicit JsonlFile(const std::filesystem::path& path) : file_(path) {}

  const std::filesystem::path& path() const { return file_.path(); }
  std::int64_t size() const { return file_.size(); }

  /// Cuts the file into `parts` ranges of about equal bytes that begin and end at line ends and together are
  /// the file.
  std::vector<ByteRange> split(std::int64_t parts) const;
  /// The number, from 1, of the line that holds byte `offset`, blank lines counted. Linear in `offset`.
  std::int64_t line_number(std::int64_t offset) const;

  class Reader {
   public:
    /// The next line; none at the end.
    std::optional<JsonlLine> next();

   private:
    friend class JsonlFile;
    Reader(std::string_view text, ByteRange range) : text_(text), at_(range.begin), end_(range.end) {}
    std::string_view text_;
    std::int64_t at_, end_;
  };
  Reader lines() const { return lines({0, size()}); }
  /// The lines of a range that `split` gave.
  Reader lines(ByteRange range) const { return Reader(file_.text(), range); }

 private:
  MappedFile file_;
};

}  // namespace verne
