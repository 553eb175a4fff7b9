// Documents of queries and keys on the device: who sees whom, and where documents begin.
#include "cuda/attention_tables.hpp"
#include "cuda/device.cuh"

namespace verne::cuda {
namespace {

constexpr int kThreads = 256;

struct Range {
  std::int64_t begin, end;
};

/// A DocumentLayout as the kernels take it; begins is null where it is uniform.
struct Documents {
  const std::int32_t *begins, *ends;
  std::int64_t count, length, pitch;

  __device__ Range at(std::int64_t document) const {
    if (begins) return {begins[document], ends[document]};
    return {document * pitch, document * pitch + length};
  }
  /// The last document that begins at or before the token; −1 where none does.
  __device__ std::int64_t last_begun(std::int64_t token) const {
    if (!begins) return token / pitch < count ? token / pitch : count - 1;
    std::int64_t low = -1, high = count;  // begins[low] <= token < begins[high]
    while (high - low > 1) {
      const std::int64_t middle = (low + high) / 2;
      if (begins[middle] <= token) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

struct Layout {
  Documents query, key;
  std::int64_t window;

  /// Keys that a query sees. The last document begun is the query's own: later ones begin behind it, and
  /// those that begin with it and before it in order are empty.
  __device__ Range keys_of_query(std::int64_t query_token) const {
    const std::int64_t document = query.last_begun(query_token);
    const Range queries = query.at(document), keys = key.at(document);
    const std::int64_t end = keys.end - (queries.end - query_token) + 1;
    return {window > 0 && end - window > keys.begin ? end - window : keys.begin, end};
  }

  /// Queries that see a key. An empty range lies where the key's queries would, so that neither end ever
  /// decreases from key to key.
  __device__ Range queries_of_key(std::int64_t key_token) const {
    const std::int64_t document = key.last_begun(key_token);
    if (document < 0) return {0, 0};
    const Range queries = query.at(document), keys = key.at(document);
    if (key_token >= keys.end) return {queries.end, queries.end};
    const std::int64_t count = queries.end - queries.begin;
    // The query that stands on the key, counted in the document; negative where the key precedes them.
    const std::int64_t own = key_token - keys.end + count;
    const std::int64_t begin = own > 0 ? own : 0;
    std::int64_t end = count;
    if (window > 0 && own + window < end) end = own + window;
    return {queries.begin + begin, queries.begin + (end > begin ? end : begin)};
  }

  /// A document's keys that some query of it sees: none without queries, else at most queries + window − 1.
  __device__ Range seen_keys(std::int64_t document) const {
    const Range queries = query.at(document);
    Range keys = key.at(document);
    const std::int64_t count = queries.end - queries.begin;
    const std::int64_t seen = count == 0 ? 0 : window > 0 ? count + window - 1 : keys.end - keys.begin;
    if (keys.end - keys.begin > seen) keys.begin = keys.end - seen;
    return keys;
  }
};

Documents documents_of(const DocumentLayout& layout) {
  const bool uniform = layout.kind == DocumentLayout::Kind::uniform;
  return {.begins = uniform ? nullptr : layout.begins.data<std::int32_t>(),
          .ends = uniform ? nullptr : layout.ends.data<std::int32_t>(),
          .count = layout.count,
          .length = layout.max_length,
          .pitch = layout.pitch};
}
Layout layout_of(const AttentionLayout& layout, std::int64_t window) {
  return {.query = documents_of(layout.query), .key = documents_of(layout.key), .window = window};
}

__global__ void visible_keys_kernel(std::int32_t* begins, std::int32_t* ends, Layout layout,
                                    std::int64_t queries) {
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (token >= queries) return;
  const Range seen = layout.keys_of_query(token);
  begins[token] = static_cast<std::int32_t>(seen.begin);
  ends[token] = static_cast<std::int32_t>(seen.end);
}

__global__ void visible_queries_kernel(std::int32_t* begins, std::int32_t* ends, Layout layout,
                                       std::int64_t keys) {
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (token >= keys) return;
  const Range seeing = layout.queries_of_key(token);
  begins[token] = static_cast<std::int32_t>(seeing.begin);
  ends[token] = static_cast<std::int32_t>(seeing.end);
}

/// A warp for each key.
template <class T>
__global__ void zero_kernel(T* dk, std::int64_t dk_stride, std::int64_t dk_width, T* dv,
                            std::int64_t dv_stride, std::int64_t dv_width, Layout layout, std::int64_t keys) {
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (token >= keys) return;
  const Range seeing = layout.queries_of_key(token);
  if (seeing.end > seeing.begin) return;
  for (std::int64_t c = threadIdx.x % kWarp; c < dk_width; c += kWarp)
    dk[token * dk_stride + c] = from_float<T>(0.0f);
  for (std::int64_t c = threadIdx.x % kWarp; c < dv_width; c += kWarp)
    dv[token * dv_stride + c] = from_float<T>(0.0f);
}

constexpr std::size_t kMaxTables = 12;
struct Factors {
  Side side[kMaxTables];
  std::int64_t stride[kMaxTables];
};

/// A thread for each place of a table, and one more for the end; a row of blocks (blockIdx.y) for each table.
__global__ void tables_kernel(std::int64_t* offsets, std::int32_t* queries, std::int32_t* keys,
                              std::int64_t capacity, std::int64_t longer_than, std::int64_t longest,
                              Layout layout, Factors factors, int tables) {
  const std::int64_t place = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (place > capacity) return;
  const std::int64_t count = layout.query.count;
  std::int64_t document = place;  // that stands at this place
  if (longer_than >= 0) {
    std::int64_t before = -1;
    for (document = 0; document < count; ++document) {
      const Range one = layout.query.at(document);
      const std::int64_t length = one.end - one.begin;
      if (length > longer_than && length <= longest && ++before == place) break;
    }
  }
  Range query{}, key{};
  if (place < capacity && document < count) {
    query = layout.query.at(document);
    key = layout.seen_keys(document);
  } else if (count > 0) {
    query.begin = query.end = layout.query.at(count - 1).end;
    key.begin = key.end = layout.key.at(count - 1).end;
  }
  const int table = static_cast<int>(blockIdx.y);
  if (table < tables) {
    const std::int64_t first = factors.side[table] == Side::query ? query.begin : key.begin;
    offsets[table * (capacity + 1) + place] = first * factors.stride[table];
  }
  if (table == 0 && place < capacity) {
    queries[place] = static_cast<std::int32_t>(query.end - query.begin);
    keys[place] = static_cast<std::int32_t>(key.end - key.begin);
  }
}

unsigned blocks_of(std::int64_t items, std::int64_t in_a_block) {
  return static_cast<unsigned>(divide_round_up(items, in_a_block));
}

}  // namespace

void fill_visible_keys(CudaQueue& queue, const AttentionLayout& layout, std::int64_t window,
                       const VisibleTables& of_queries) {
  const std::int64_t queries = of_queries.begins.count();
  visible_keys_kernel<<<blocks_of(queries, kThreads), kThreads, 0, stream_of(queue)>>>(
      of_queries.begins.data<std::int32_t>(), of_queries.ends.data<std::int32_t>(), layout_of(layout, window),
      queries);
  check_launch("attention's visible keys");
}

void fill_visible_queries(CudaQueue& queue, const AttentionLayout& layout, std::int64_t window,
                          const VisibleTables& of_keys) {
  const std::int64_t keys = of_keys.begins.count();
  visible_queries_kernel<<<blocks_of(keys, kThreads), kThreads, 0, stream_of(queue)>>>(
      of_keys.begins.data<std::int32_t>(), of_keys.ends.data<std::int32_t>(), layout_of(layout, window),
      keys);
  check_launch("attention's visible queries");
}

void zero_unseen_keys(CudaQueue& queue, const AttentionLayout& layout, std::int64_t window, const Tensor& dk,
                      const Tensor& dv) {
  const std::int64_t keys = dk.size(0);
  for_storage(dk.dtype(), [&](auto storage) {
    using T = decltype(storage);
    zero_kernel<T><<<blocks_of(keys, kThreads / kWarp), kThreads, 0, stream_of(queue)>>>(
        pointer<T>(dk), dk.stride(), row_width(dk), pointer<T>(dv), dv.stride(), row_width(dv),
        layout_of(layout, window), keys);
  });
  check_launch("attention's unseen keys");
}

void fill_document_tables(CudaQueue& queue, const AttentionLayout& layout, std::int64_t window,
                          std::span<const OffsetTable> offsets, const DocumentTables& tables) {
  require(offsets.size() <= kMaxTables, "{} offset tables; the kernel fills {}", offsets.size(), kMaxTables);
  Factors factors{};
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    factors.side[i] = offsets[i].side;
    factors.stride[i] = offsets[i].stride;
  }
  const std::int64_t capacity = tables.queries.count();
  const dim3 blocks(blocks_of(capacity + 1, kThreads),
                    std::max<unsigned>(1, static_cast<unsigned>(offsets.size())));
  tables_kernel<<<blocks, kThreads, 0, stream_of(queue)>>>(
      offsets.empty() ? nullptr : tables.offsets.data<std::int64_t>(), tables.queries.data<std::int32_t>(),
      tables.keys.data<std::int32_t>(), capacity, tables.longer_than, tables.longest,
      layout_of(layout, window), factors, static_cast<int>(offsets.size()));
  check_launch("attention's document tables");
}

}  // namespace verne::cuda
