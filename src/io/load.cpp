#include "verne/io/load.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "block_exchange.hpp"
#include "verne/base/error.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/convert.hpp"
#include "verne/io/redistribute.hpp"

namespace verne {
namespace {

constexpr std::int64_t kBufferBytes = std::int64_t{64} << 20;
/// Between runs, gaps up to this size are read along rather than skipped by another call.
constexpr std::int64_t kGapBytes = std::int64_t{256} << 10;

using Index = std::map<std::string_view, const TensorInfo*>;

/// Every tensor there, of the right shape and a dtype that converts; all that is wrong in one message.
void check_source(const TensorSource& source, const Index& index, std::span<const TensorPart> parts) {
  constexpr std::size_t kShown = 8;
  std::vector<std::string> wrong;
  for (const TensorPart& part : parts) {
    const auto found = index.find(part.name);
    if (found == index.end()) {
      const auto& unsupported = source.unsupported();
      const auto other =
          std::find_if(unsupported.begin(), unsupported.end(),
                       [&](const UnsupportedTensor& tensor) { return tensor.name == part.name; });
      wrong.push_back(other == unsupported.end()
                          ? fmt::format("{} {} is missing", part.name, part.shape.text())
                          : other->text() + ", which cannot be read");
    } else if (found->second->shape != part.shape) {
      wrong.push_back(fmt::format("{} has shape {}, expected {}", part.name, found->second->shape.text(),
                                  part.shape.text()));
    } else if (!convertible(found->second->dtype, part.local ? part.local.dtype() : part.dtype)) {
      wrong.push_back(fmt::format("{} is {}, which does not convert to {}", part.name,
                                  name(found->second->dtype),
                                  name(part.local ? part.local.dtype() : part.dtype)));
    }
  }
  if (wrong.empty()) return;
  std::string list;
  for (std::size_t i = 0; i < std::min(kShown, wrong.size()); ++i) list += "\n  " + one_line(wrong[i]);
  if (wrong.size() > kShown) list += fmt::format("\n  and {} more", wrong.size() - kShown);
  throw_user_error("{}: the weights do not fit the model:{}", source.origin(), OwnLines{list});
}

/// Reads a part's segments in ascending order, several at once where they lie close together.
class PartReader {
 public:
  PartReader(const TensorSource& source, Queue& queue) : source_(source), memory_(queue) {}

  void read(const TensorInfo& tensor, const TensorPart& part) {
    const std::int64_t total = tensor.shape.count();
    const std::int64_t window = kBufferBytes / 2 * 8 / bits(tensor.dtype);
    for (std::int64_t begin = 0; begin < total; begin += window) {
      const std::vector<Segment> segments =
          segments_within(part.runs, begin, std::min(begin + window, total));
      for (std::size_t first = 0; first < segments.size();) {
        std::size_t last = first + 1;
        std::int64_t end = segments[first].global + segments[first].length;
        while (last < segments.size() && bytes_of(tensor.dtype, segments[last].global - end) <= kGapBytes) {
          end = std::max(end, segments[last].global + segments[last].length);
          ++last;
        }
        read_group(tensor, part, std::span(segments).subspan(first, last - first), end);
        first = last;
      }
    }
  }

 private:
  void read_group(const TensorInfo& tensor, const TensorPart& part, std::span<const Segment> segments,
                  std::int64_t end) {
    const auto size_of = [&](std::int64_t count) {
      return static_cast<std::size_t>(bytes_of(tensor.dtype, count));
    };
    const std::int64_t begin = segments[0].global;
    raw_.resize(size_of(end - begin));
    source_.read(tensor, bytes_of(tensor.dtype, begin), raw_);
    std::span<std::byte> packed = raw_;
    if (segments.size() > 1) {
      // Moves the wanted elements together in place; overlapping runs want some of them twice.
      std::size_t length = 0;
      bool ascending = true;
      for (std::size_t i = 0; i < segments.size(); ++i) {
        length += size_of(segments[i].length);
        ascending =
            ascending && (i == 0 || segments[i - 1].global + segments[i - 1].length <= segments[i].global);
      }
      require(ascending, "{}: runs of one part overlap", tensor.name);
      std::size_t at = 0;
      for (const Segment& segment : segments) {
        const auto from = raw_.begin() + static_cast<std::ptrdiff_t>(size_of(segment.global - begin));
        std::copy(from, from + static_cast<std::ptrdiff_t>(size_of(segment.length)),
                  raw_.begin() + static_cast<std::ptrdiff_t>(at));
        at += size_of(segment.length);
      }
      packed = std::span(raw_).first(length);
    }
    memory_.scatter(part.local, segments, tensor.dtype, packed);
  }

  const TensorSource& source_;
  PartMemory memory_;
  std::vector<std::byte> raw_;
};

}  // namespace

void load_parts(const TensorSource& source, const HostGroup& group, Queue& queue,
                std::span<const TensorPart> parts) {
  Index index;
  for (const TensorInfo& tensor : source.tensors()) index.emplace(tensor.name, &tensor);
  agree_after(group, [&] {
    check_source(source, index, parts);
    for (const TensorPart& part : parts) check_part(part);
  });
  agree_after(group, [&] {
    PartReader reader(source, queue);
    for (const TensorPart& part : parts) reader.read(*index.find(part.name)->second, part);
  });
}

void store_parts(const HostGroup& group, Queue& queue, std::span<const TensorPart> parts, TensorSink& sink) {
  for_each_block(group, queue, parts,
                 [&](const TensorInfo& tensor, std::int64_t block, std::span<const std::byte> bytes) {
                   sink.write(tensor, block * kBlockBytes, bytes);
                 });
}

}  // namespace verne
