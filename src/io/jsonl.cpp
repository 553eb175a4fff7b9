#include "verne/io/jsonl.hpp"

#include <algorithm>

#include "verne/base/error.hpp"

namespace verne {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// The byte after the first line end at or after `at`; the size where there is none.
std::int64_t next_line(std::string_view text, std::int64_t at) {
  const std::size_t end = text.find('\n', static_cast<std::size_t>(at));
  return static_cast<std::int64_t>(end == std::string_view::npos ? text.size() : end + 1);
}

}  // namespace

std::vector<ByteRange> JsonlFile::split(std::int64_t parts) const {
  require(parts >= 1, "a file split into {} parts", parts);
  const std::string_view text = file_.text();
  std::vector<ByteRange> ranges;
  std::int64_t begin = 0;
  for (std::int64_t part = 0; part < parts; ++part) {
    const std::int64_t target = size() / parts * (part + 1) + size() % parts * (part + 1) / parts;
    std::int64_t end = size();
    // A range ends after the line that holds the last byte of its share.
    if (part + 1 < parts) end = target <= begin ? begin : next_line(text, target - 1);
    ranges.push_back({begin, end});
    begin = end;
  }
  return ranges;
}

std::int64_t JsonlFile::line_number(std::int64_t offset) const {
  const std::string_view before = file_.text().substr(0, static_cast<std::size_t>(offset));
  return 1 + std::count(before.begin(), before.end(), '\n');
}

std::optional<JsonlLine> JsonlFile::Reader::next() {
  while (at_ < end_) {
    const std::int64_t begin = at_;
    at_ = next_line(text_, begin);
    std::string_view line =
        text_.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(at_ - begin));
    std::int64_t offset = begin;
    if (begin == 0 && line.starts_with(kByteOrderMark)) {
      line.remove_prefix(kByteOrderMark.size());
      offset += static_cast<std::int64_t>(kByteOrderMark.size());
    }
    if (line.ends_with('\n')) line.remove_suffix(1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    return JsonlLine{offset, line};
  }
  return std::nullopt;
}

}  // namespace verne
