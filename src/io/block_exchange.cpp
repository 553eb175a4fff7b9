#include "block_exchange.hpp"

#include <algorithm>
#include <charconv>
#include <map>

#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/convert.hpp"

namespace verne {
namespace {

/// Largest piece that goes between a device and the host at once.
constexpr std::int64_t kStagingBytes = std::int64_t{8} << 20;

/// Numbers and names as one text: lengths before texts, so that any name passes.
class Writer {
 public:
  void number(std::int64_t value) { text_ += std::to_string(value) + ' '; }
  void text(const std::string& value) {
    number(static_cast<std::int64_t>(value.size()));
    text_ += value;
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}
  bool at_end() const { return text_.empty(); }
  std::int64_t number() {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), value);
    require(error == std::errc() && end < text_.data() + text_.size(),
            "parts of another rank cannot be read");
    text_.remove_prefix(static_cast<std::size_t>(end - text_.data()) + 1);
    return value;
  }
  std::string text() {
    const auto length = static_cast<std::size_t>(number());
    require(length <= text_.size(), "parts of another rank cannot be read");
    std::string value(text_.substr(0, length));
    text_.remove_prefix(length);
    return value;
  }

 private:
  std::string_view text_;
};

std::string write_parts(std::span<const TensorPart> parts) {
  Writer writer;
  for (const TensorPart& part : parts) {
    writer.text(part.name);
    writer.number(static_cast<std::int64_t>(part.dtype));
    writer.number(part.shape.rank());
    for (const std::int64_t extent : part.shape.extents()) writer.number(extent);
    writer.number(static_cast<std::int64_t>(part.runs.size()));
    for (const ElementRuns& run : part.runs)
      for (const std::int64_t value :
           {run.global, run.local, run.length, run.count, run.global_stride, run.local_stride})
        writer.number(value);
  }
  return writer.take();
}

/// Consecutive elements of a logical tensor.
struct Span {
  std::int64_t begin, length;
};

std::size_t size_of(DType type, std::int64_t count) {
  return static_cast<std::size_t>(bytes_of(type, count));
}

/// A piece of local memory and the byte of the host buffer that it belongs to.
struct Piece {
  std::int64_t local, length;
  std::size_t host;
};

std::vector<Piece> pieces_of(std::span<const Segment> segments, DType dtype, std::int64_t max_length) {
  std::vector<Piece> pieces;
  std::size_t host = 0;
  for (const Segment& segment : segments) {
    for (std::int64_t done = 0; done < segment.length; done += max_length) {
      const std::int64_t length = std::min(max_length, segment.length - done);
      pieces.push_back({segment.local + done, length, host});
      host += size_of(dtype, length);
    }
  }
  return pieces;
}

/// Calls move(local_begin, length, pieces) for pieces that are neighbours in local memory, together at most
/// `max_length` elements: what one copy between device and host can carry.
template <class Move>
void for_each_copy(std::vector<Piece> pieces, std::int64_t max_length, const Move& move) {
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.local < b.local; });
  for (std::size_t first = 0; first < pieces.size();) {
    std::size_t last = first + 1;
    std::int64_t length = pieces[first].length;
    while (last < pieces.size() && pieces[last].local == pieces[first].local + length &&
           length + pieces[last].length <= max_length)
      length += pieces[last++].length;
    move(pieces[first].local, length, std::span<const Piece>(pieces).subspan(first, last - first));
    first = last;
  }
}

}  // namespace

void check_part(const TensorPart& part) {
  const std::int64_t total = part.shape.count();
  for (const ElementRuns& run : part.runs) {
    require(run.length >= 0 && run.count >= 0, "{}: {} runs of {} elements", part.name, run.count,
            run.length);
    if (run.length == 0 || run.count == 0) continue;
    require(part.local && part.local.contiguous(), "{}: runs without contiguous local memory", part.name);
    require(run.count == 1 || (run.global_stride >= run.length && run.local_stride >= run.length),
            "{}: {} runs of {} elements every {} (local {}) overlap", part.name, run.count, run.length,
            run.global_stride, run.local_stride);
    const auto end = [&](std::int64_t begin, std::int64_t stride) {
      const auto span = checked_multiply(run.count - 1, run.count == 1 ? std::int64_t{0} : stride);
      const auto last = span ? checked_add(begin, *span) : std::nullopt;
      return last ? checked_add(*last, run.length) : std::nullopt;
    };
    const auto global_end = end(run.global, run.global_stride), local_end = end(run.local, run.local_stride);
    require(run.global >= 0 && global_end && *global_end <= total, "{}: a run leaves the {} elements of {}",
            part.name, total, part.shape.text());
    require(run.local >= 0 && local_end && *local_end <= part.local.count(),
            "{}: a run leaves the {} elements held here", part.name, part.local.count());
    require(convertible(part.local.dtype(), part.dtype), "{}: no conversion between {} and {}", part.name,
            name(part.local.dtype()), name(part.dtype));
  }
}

std::vector<HeldTensor> gather_holders(const HostGroup& group, std::span<const TensorPart> parts) {
  agree_after(group, [&] {
    for (const TensorPart& part : parts) check_part(part);
  });
  const std::vector<std::string> texts = group.all_gather_text(write_parts(parts));
  std::vector<HeldTensor> tensors;
  std::map<std::string, std::size_t> index;
  // Every rank reads the same texts: what is wrong is wrong everywhere.
  for (int rank = 0; rank < group.size(); ++rank) {
    Reader reader(texts[static_cast<std::size_t>(rank)]);
    for (std::int64_t part = 0; !reader.at_end(); ++part) {
      TensorInfo info{reader.text(), static_cast<DType>(reader.number()), {}};
      std::vector<std::int64_t> extents(static_cast<std::size_t>(reader.number()));
      for (std::int64_t& extent : extents) extent = reader.number();
      info.shape = Shape(std::span<const std::int64_t>(extents));
      Holder holder{rank, part, {}};
      holder.runs.resize(static_cast<std::size_t>(reader.number()));
      for (ElementRuns& run : holder.runs)
        for (std::int64_t* value :
             {&run.global, &run.local, &run.length, &run.count, &run.global_stride, &run.local_stride})
          *value = reader.number();
      const auto [known, added] = index.emplace(info.name, tensors.size());
      if (added) tensors.push_back({info, {}});
      HeldTensor& tensor = tensors[known->second];
      require(tensor.info.dtype == info.dtype && tensor.info.shape == info.shape,
              "rank {} has {} as {} {}, a rank before it as {} {}", rank, info.name, name(info.dtype),
              info.shape.text(), name(tensor.info.dtype), tensor.info.shape.text());
      if (!holder.runs.empty()) tensor.holders.push_back(std::move(holder));
    }
  }
  return tensors;
}

std::vector<Segment> segments_within(const std::vector<ElementRuns>& runs, std::int64_t begin,
                                     std::int64_t end) {
  std::vector<Segment> segments;
  bool sorted = true;
  for (const ElementRuns& run : runs) {
    if (run.length == 0 || run.count == 0 || run.global >= end) continue;
    std::int64_t first = 0;
    if (run.count > 1 && begin > run.global) first = (begin - run.global) / run.global_stride;
    for (std::int64_t i = first; i < run.count; ++i) {
      const std::int64_t start = run.global + i * run.global_stride;
      if (start >= end) break;
      const std::int64_t from = std::max(start, begin), to = std::min(start + run.length, end);
      if (from >= to) continue;
      sorted = sorted && (segments.empty() || segments.back().global <= from);
      segments.push_back({from, run.local + i * run.local_stride + (from - start), to - from});
    }
  }
  if (!sorted)
    std::sort(segments.begin(), segments.end(),
              [](const Segment& a, const Segment& b) { return a.global < b.global; });
  return segments;
}

std::vector<Provision> choose_providers(const HeldTensor& tensor, std::int64_t begin, std::int64_t end,
                                        int first_rank, int ranks, std::int64_t& covered) {
  std::vector<const Holder*> order;
  for (const Holder& holder : tensor.holders) order.push_back(&holder);
  std::stable_sort(order.begin(), order.end(), [&](const Holder* a, const Holder* b) {
    return (a->rank - first_rank + ranks) % ranks < (b->rank - first_rank + ranks) % ranks;
  });
  // `taken`: disjoint, ascending, never touching.
  std::vector<Span> taken, merged;
  std::vector<Provision> provisions;
  covered = 0;
  for (const Holder* holder : order) {
    if (covered == end - begin) break;
    const std::vector<Segment> held = segments_within(holder->runs, begin, end);
    if (held.empty()) continue;
    Provision provision{holder, {}};
    std::size_t t = 0;
    std::int64_t done = begin;  // what this holder itself has given already, should its runs overlap
    for (const Segment& segment : held) {
      std::int64_t at = std::max(segment.global, done);
      const std::int64_t stop = segment.global + segment.length;
      while (at < stop) {
        while (t < taken.size() && taken[t].begin + taken[t].length <= at) ++t;
        const std::int64_t free_end = t < taken.size() ? std::min(stop, taken[t].begin) : stop;
        if (free_end > at) {
          provision.segments.push_back({at, segment.local + (at - segment.global), free_end - at});
          covered += free_end - at;
          at = free_end;
        }
        if (t < taken.size() && at < stop) at = std::min(stop, taken[t].begin + taken[t].length);
      }
      done = std::max(done, stop);
    }
    if (provision.segments.empty()) continue;
    merged.clear();
    const auto append = [&](std::int64_t start, std::int64_t length) {
      if (!merged.empty() && merged.back().begin + merged.back().length == start) {
        merged.back().length += length;
      } else {
        merged.push_back({start, length});
      }
    };
    std::size_t a = 0, b = 0;
    while (a < taken.size() || b < provision.segments.size()) {
      if (b == provision.segments.size() ||
          (a < taken.size() && taken[a].begin < provision.segments[b].global)) {
        append(taken[a].begin, taken[a].length);
        ++a;
      } else {
        append(provision.segments[b].global, provision.segments[b].length);
        ++b;
      }
    }
    std::swap(taken, merged);
    provisions.push_back(std::move(provision));
  }
  return provisions;
}

void PartMemory::gather(const Tensor& local, std::span<const Segment> segments, DType dtype,
                        std::span<std::byte> to) {
  const DType held = local.dtype();
  const std::int64_t max_length = kStagingBytes * 8 / bits(held);
  const std::vector<Piece> pieces = pieces_of(segments, dtype, max_length);
  const auto take = [&](const Piece& piece, const std::byte* from) {
    convert(held, {from, size_of(held, piece.length)}, dtype,
            to.subspan(piece.host, size_of(dtype, piece.length)));
  };
  if (queue_.kind() == QueueKind::cpu) {
    for (const Piece& piece : pieces) take(piece, local.raw() + size_of(held, piece.local));
    return;
  }
  const Tensor flat = local.view({local.count()});
  for_each_copy(pieces, max_length,
                [&](std::int64_t begin, std::int64_t length, std::span<const Piece> group) {
                  staging_.resize(size_of(held, length));
                  queue_.download(staging_, flat.rows(begin, length));
                  for (const Piece& piece : group)
                    take(piece, staging_.data() + size_of(held, piece.local - begin));
                });
}

void PartMemory::scatter(const Tensor& local, std::span<const Segment> segments, DType dtype,
                         std::span<const std::byte> from) {
  const DType held = local.dtype();
  const std::int64_t max_length = kStagingBytes * 8 / bits(held);
  const std::vector<Piece> pieces = pieces_of(segments, dtype, max_length);
  const auto put = [&](const Piece& piece, std::byte* to) {
    convert(dtype, from.subspan(piece.host, size_of(dtype, piece.length)), held,
            {to, size_of(held, piece.length)});
  };
  if (queue_.kind() == QueueKind::cpu) {
    for (const Piece& piece : pieces) put(piece, local.raw() + size_of(held, piece.local));
    return;
  }
  const Tensor flat = local.view({local.count()});
  for_each_copy(pieces, max_length,
                [&](std::int64_t begin, std::int64_t length, std::span<const Piece> group) {
                  staging_.resize(size_of(held, length));
                  for (const Piece& piece : group)
                    put(piece, staging_.data() + size_of(held, piece.local - begin));
                  queue_.upload(flat.rows(begin, length), std::span<const std::byte>(staging_));
                });
}

}  // namespace verne
