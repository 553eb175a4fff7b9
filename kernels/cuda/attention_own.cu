#include "cuda/attention_own.hpp"
#include "cuda/attention_tables.hpp"
#include "cuda/device.cuh"

namespace verne::cuda {
namespace {

constexpr int kTile =
    32;  // rows that a block works on, and rows of the other side that it passes over at once
constexpr int kWarps = 8;
constexpr int kRows = kTile / kWarps;  // of a warp
constexpr int kThreads = kWarps * kWarp;

/// Rows [begin, begin + kTile) of one head as float32 in shared memory, a row `dim` + 1 floats long; zeros
/// from `end` on.
template <class T>
__device__ void load_tile(float* tile, const T* x, std::int64_t stride, std::int64_t head, std::int64_t dim,
                          std::int64_t begin, std::int64_t end) {
  for (int row = threadIdx.x / kWarp; row < kTile; row += kWarps) {
    const T* from = x + (begin + row) * stride + head * dim;
    for (std::int64_t c = threadIdx.x % kWarp; c < dim; c += kWarp) {
      tile[row * (dim + 1) + c] = begin + row < end ? to_float(from[c]) : 0.0f;
    }
  }
}

/// result[r] = rows[r]·other[lane] for the warp's rows.
__device__ inline void dots(float (&result)[kRows], const float* rows, const float* other, std::int64_t dim) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) result[r] = 0.0f;
  for (std::int64_t c = 0; c < dim; ++c) {
    const float value = other[c];
#pragma unroll
    for (int r = 0; r < kRows; ++r) result[r] += rows[r * (dim + 1) + c] * value;
  }
}

/// sums[r] += Σ_j factor[r] of lane j · tile[j]; a lane holds columns lane, lane + 32, …
template <int kColumns>
__device__ void add_rows(float (&sums)[kRows][kColumns], const float (&factor)[kRows], const float* tile,
                         std::int64_t dim) {
  const int lane = threadIdx.x % kWarp;
  for (int j = 0; j < kTile; ++j) {
    float value[kColumns];
#pragma unroll
    for (int t = 0; t < kColumns; ++t) {
      const int column = lane + t * kWarp;
      value[t] = column < dim ? tile[j * (dim + 1) + column] : 0.0f;
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float f = __shfl_sync(0xffffffffu, factor[r], j);
#pragma unroll
      for (int t = 0; t < kColumns; ++t) sums[r][t] += f * value[t];
    }
  }
}

template <class T, int kColumns>
__device__ void store_row(T* to, const float (&values)[kColumns], float factor, std::int64_t dim) {
#pragma unroll
  for (int t = 0; t < kColumns; ++t) {
    const std::int64_t column = threadIdx.x % kWarp + t * kWarp;
    if (column < dim) to[column] = from_float<T>(values[t] * factor);
  }
}

/// Where log_sum_exp has a query and head: [tokens, heads], or [documents, heads, length] where documents are
/// uniform (length > 0).
__device__ inline std::int64_t statistics_at(std::int64_t token, std::int64_t head, std::int64_t heads,
                                             std::int64_t length) {
  return length == 0 ? token * heads + head : (token / length * heads + head) * length + token % length;
}

template <class T>
struct Rows {
  T* data;
  std::int64_t stride;
};
template <class T>
Rows<T> rows_of(const Tensor& tensor) {
  return {pointer<T>(tensor), tensor.stride()};
}

/// VisibleTables as the kernels take them.
struct Ranges {
  const std::int32_t *begin, *end;
};

template <class T>
struct Forward {
  Rows<T> out;
  float* log_sum_exp;
  Rows<const T> q, k, v;
  Ranges visible;  // keys of each query
  std::int64_t queries, heads, group, dim, value_dim, statistics_length;
  float scale;
};

/// A block: 32 queries of one head; passes over their keys 32 at a time with a running softmax.
template <class T, int kColumns>
__global__ void __launch_bounds__(kThreads) forward_kernel(Forward<T> a) {
  extern __shared__ float shared[];
  float *q = shared, *k = q + kTile * (a.dim + 1), *v = k + kTile * (a.dim + 1);
  const std::int64_t head = blockIdx.y, begin = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const std::int64_t end = begin + kTile < a.queries ? begin + kTile : a.queries;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  load_tile(q, a.q.data, a.q.stride, head, a.dim, begin, end);

  float most[kRows], total[kRows], sums[kRows][kColumns];
  std::int64_t first[kRows], last[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t query = begin + warp * kRows + r;
    first[r] = query < end ? a.visible.begin[query] : 0;
    last[r] = query < end ? a.visible.end[query] : 0;
    most[r] = -INFINITY;
    total[r] = 0.0f;
#pragma unroll
    for (int t = 0; t < kColumns; ++t) sums[r][t] = 0.0f;
  }
  const std::int64_t key_end = a.visible.end[end - 1];
  for (std::int64_t key = a.visible.begin[begin]; key < key_end; key += kTile) {
    __syncthreads();
    load_tile(k, a.k.data, a.k.stride, head / a.group, a.dim, key, key_end);
    load_tile(v, a.v.data, a.v.stride, head / a.group, a.value_dim, key, key_end);
    __syncthreads();
    float p[kRows];
    dots(p, q + warp * kRows * (a.dim + 1), k + lane * (a.dim + 1), a.dim);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const bool visible = key + lane >= first[r] && key + lane < last[r];
      const float score = visible ? p[r] * a.scale : -INFINITY;
      const float now = fmaxf(most[r], warp_max(score));
      const float keep = now == -INFINITY ? 1.0f : expf(most[r] - now);
      p[r] = visible ? expf(score - now) : 0.0f;
      total[r] = total[r] * keep + warp_sum(p[r]);
      most[r] = now;
#pragma unroll
      for (int t = 0; t < kColumns; ++t) sums[r][t] *= keep;
    }
    add_rows(sums, p, v, a.value_dim);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t query = begin + warp * kRows + r;
    if (query >= end) continue;
    if (lane == 0)
      a.log_sum_exp[statistics_at(query, head, a.heads, a.statistics_length)] = most[r] + logf(total[r]);
    store_row(a.out.data + query * a.out.stride + head * a.value_dim, sums[r], 1.0f / total[r], a.value_dim);
  }
}

/// delta[t, h] = Σ_c dout·out, a warp for each.
template <class T>
__global__ void delta_kernel(float* delta, Rows<const T> dout, Rows<const T> out, std::int64_t tokens,
                             std::int64_t heads, std::int64_t dim) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (index >= tokens * heads) return;
  const std::int64_t token = index / heads, head = index % heads;
  float sum = 0.0f;
  for (std::int64_t c = threadIdx.x % kWarp; c < dim; c += kWarp) {
    sum += to_float(dout.data[token * dout.stride + head * dim + c]) *
           to_float(out.data[token * out.stride + head * dim + c]);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) delta[index] = sum;
}

template <class T>
struct Backward {
  Rows<T> dq, dk, dv;
  Rows<const T> dout, q, k, v;
  const float *log_sum_exp, *delta;
  Ranges visible;  // keys of each query
  Ranges seeing;   // queries of each key
  std::int64_t queries, keys, heads, group, dim, value_dim, statistics_length;
  float scale;
};

/// dq_i = Σ_j ds_ij·k_j with p = exp(s − log_sum_exp), ds = p·(dout·v − delta)·scale. Blocks as in the
/// forward.
template <class T, int kColumns>
__global__ void __launch_bounds__(kThreads) backward_q_kernel(Backward<T> a) {
  extern __shared__ float shared[];
  const std::int64_t tile_floats = kTile * (a.dim + 1), value_floats = kTile * (a.value_dim + 1);
  float *q = shared, *k = q + tile_floats, *dout = k + tile_floats, *v = dout + value_floats;
  const std::int64_t head = blockIdx.y, begin = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const std::int64_t end = begin + kTile < a.queries ? begin + kTile : a.queries;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  load_tile(q, a.q.data, a.q.stride, head, a.dim, begin, end);
  load_tile(dout, a.dout.data, a.dout.stride, head, a.value_dim, begin, end);

  float log_sum_exp[kRows], delta[kRows], sums[kRows][kColumns];
  std::int64_t first[kRows], last[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t query = begin + warp * kRows + r;
    first[r] = query < end ? a.visible.begin[query] : 0;
    last[r] = query < end ? a.visible.end[query] : 0;
    log_sum_exp[r] =
        query < end ? a.log_sum_exp[statistics_at(query, head, a.heads, a.statistics_length)] : 0.0f;
    delta[r] = query < end ? a.delta[query * a.heads + head] : 0.0f;
#pragma unroll
    for (int t = 0; t < kColumns; ++t) sums[r][t] = 0.0f;
  }
  const std::int64_t key_end = a.visible.end[end - 1];
  for (std::int64_t key = a.visible.begin[begin]; key < key_end; key += kTile) {
    __syncthreads();
    load_tile(k, a.k.data, a.k.stride, head / a.group, a.dim, key, key_end);
    load_tile(v, a.v.data, a.v.stride, head / a.group, a.value_dim, key, key_end);
    __syncthreads();
    float s[kRows], dp[kRows];
    dots(s, q + warp * kRows * (a.dim + 1), k + lane * (a.dim + 1), a.dim);
    dots(dp, dout + warp * kRows * (a.value_dim + 1), v + lane * (a.value_dim + 1), a.value_dim);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const bool visible = key + lane >= first[r] && key + lane < last[r];
      s[r] = visible ? expf(s[r] * a.scale - log_sum_exp[r]) * (dp[r] - delta[r]) * a.scale : 0.0f;
    }
    add_rows(sums, s, k, a.dim);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t query = begin + warp * kRows + r;
    if (query < end) store_row(a.dq.data + query * a.dq.stride + head * a.dim, sums[r], 1.0f, a.dim);
  }
}

/// dv_j = Σ p_ij·dout_i, dk_j = Σ ds_ij·q_i over the queries of all heads that share the key; zeros where
/// there are none. A block: 32 keys of one key/value head, in the order of heads and queries.
template <class T, int kColumns>
__global__ void __launch_bounds__(kThreads) backward_kv_kernel(Backward<T> a) {
  extern __shared__ float shared[];
  const std::int64_t tile_floats = kTile * (a.dim + 1), value_floats = kTile * (a.value_dim + 1);
  float *k = shared, *q = k + tile_floats, *v = q + tile_floats, *dout = v + value_floats;
  const std::int64_t kv_head = blockIdx.y, begin = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const std::int64_t end = begin + kTile < a.keys ? begin + kTile : a.keys;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  load_tile(k, a.k.data, a.k.stride, kv_head, a.dim, begin, end);
  load_tile(v, a.v.data, a.v.stride, kv_head, a.value_dim, begin, end);

  float dk[kRows][kColumns], dv[kRows][kColumns];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int t = 0; t < kColumns; ++t) dk[r][t] = dv[r][t] = 0.0f;
  }
  const std::int64_t query_begin = a.seeing.begin[begin], query_end = a.seeing.end[end - 1];
  for (std::int64_t head = kv_head * a.group; head < (kv_head + 1) * a.group; ++head) {
    for (std::int64_t tile = query_begin; tile < query_end; tile += kTile) {
      __syncthreads();
      load_tile(q, a.q.data, a.q.stride, head, a.dim, tile, query_end);
      load_tile(dout, a.dout.data, a.dout.stride, head, a.value_dim, tile, query_end);
      __syncthreads();
      const std::int64_t query = tile + lane;
      const bool present = query < query_end;
      const std::int64_t first = present ? a.visible.begin[query] : 0,
                         last = present ? a.visible.end[query] : 0;
      const float log_sum_exp =
          present ? a.log_sum_exp[statistics_at(query, head, a.heads, a.statistics_length)] : 0.0f;
      const float delta = present ? a.delta[query * a.heads + head] : 0.0f;
      float p[kRows], ds[kRows];
      dots(p, k + warp * kRows * (a.dim + 1), q + lane * (a.dim + 1), a.dim);
      dots(ds, v + warp * kRows * (a.value_dim + 1), dout + lane * (a.value_dim + 1), a.value_dim);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const std::int64_t key = begin + warp * kRows + r;
        const bool visible = key >= first && key < last;
        p[r] = visible ? expf(p[r] * a.scale - log_sum_exp) : 0.0f;
        ds[r] = visible ? p[r] * (ds[r] - delta) * a.scale : 0.0f;
      }
      add_rows(dv, p, dout, a.value_dim);
      add_rows(dk, ds, q, a.dim);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t key = begin + warp * kRows + r;
    if (key >= end) continue;
    store_row(a.dk.data + key * a.dk.stride + kv_head * a.dim, dk[r], 1.0f, a.dim);
    store_row(a.dv.data + key * a.dv.stride + kv_head * a.value_dim, dv[r], 1.0f, a.value_dim);
  }
}

/// Calls body with the number of columns that a lane holds.
template <class Body>
void for_columns(std::int64_t dim, Body&& body) {
  require(dim <= 256, "attention heads of {} columns; the kernels take at most 256", dim);
  if (dim <= 64) {
    body(std::integral_constant<int, 2>{});
  } else if (dim <= 128) {
    body(std::integral_constant<int, 4>{});
  } else {
    body(std::integral_constant<int, 8>{});
  }
}

/// Grid of one block a tile and head.
dim3 tiles(std::int64_t tokens, std::int64_t heads) {
  return {static_cast<unsigned>(divide_round_up<std::int64_t>(tokens, kTile)), static_cast<unsigned>(heads)};
}

/// Bytes of shared memory for two tiles of width `dim` and `value_tiles` of width `value_dim`.
std::int64_t shared_bytes(std::int64_t dim, std::int64_t value_tiles, std::int64_t value_dim) {
  return bytes_of(DType::f32, kTile * (2 * (dim + 1) + value_tiles * (value_dim + 1)));
}

/// The queries of a uniform document; 0: packed.
std::int64_t statistics_length(const AttentionLayout& layout) {
  return layout.query.kind == DocumentLayout::Kind::uniform ? layout.query.max_length : 0;
}

/// Hands out the queue's workspace from its beginning on.
class Work {
 public:
  /// Rounded up so that the next tensor is aligned.
  static std::int64_t bytes(DType type, std::int64_t count) {
    return round_up<std::int64_t>(bytes_of(type, count), 256);
  }
  explicit Work(std::byte* memory) : memory_(memory) {}
  Tensor take(DType type, std::int64_t count) {
    const Tensor tensor(memory_, type, {count});
    memory_ += bytes(type, count);
    return tensor;
  }
  VisibleTables take_tables(std::int64_t tokens) {
    const Tensor begins = take(DType::i32, tokens);
    return {begins, take(DType::i32, tokens)};
  }

 private:
  std::byte* memory_;
};

Ranges ranges_of(const VisibleTables& tables) {
  return {tables.begins.data<std::int32_t>(), tables.ends.data<std::int32_t>()};
}

template <class T, int kColumns>
void launch_forward(CudaQueue& queue, const AttentionForward& op, const VisibleTables& visible) {
  const std::int64_t queries = op.q.size(0), heads = op.q.size(1), dim = op.q.size(2),
                     value_dim = op.v.size(2);
  const Forward<T> arguments{.out = rows_of<T>(op.out),
                             .log_sum_exp = op.log_sum_exp.data<float>(),
                             .q = rows_of<const T>(op.q),
                             .k = rows_of<const T>(op.k),
                             .v = rows_of<const T>(op.v),
                             .visible = ranges_of(visible),
                             .queries = queries,
                             .heads = heads,
                             .group = heads / op.k.size(1),
                             .dim = dim,
                             .value_dim = value_dim,
                             .statistics_length = statistics_length(op.layout),
                             .scale = static_cast<float>(op.scale)};
  const std::int64_t shared = shared_bytes(dim, 1, value_dim);
  const auto kernel = forward_kernel<T, kColumns>;
  reserve_shared(kernel, shared);
  kernel<<<tiles(queries, heads), kThreads, static_cast<std::size_t>(shared), stream_of(queue)>>>(arguments);
  check_launch(AttentionForward::kName);
}

template <class T, int kColumns>
void launch_backward(CudaQueue& queue, const AttentionBackward& op, const VisibleTables& visible,
                     const VisibleTables& seeing, const Tensor& delta) {
  const std::int64_t queries = op.q.size(0), keys = op.k.size(0), heads = op.q.size(1),
                     kv_heads = op.k.size(1), dim = op.q.size(2), value_dim = op.v.size(2);
  const cudaStream_t stream = stream_of(queue);
  const auto blocks = static_cast<unsigned>(divide_round_up<std::int64_t>(queries * heads, kWarps));
  delta_kernel<T><<<blocks, kThreads, 0, stream>>>(delta.data<float>(), rows_of<const T>(op.dout),
                                                   rows_of<const T>(op.out), queries, heads, value_dim);
  check_launch("attention delta");
  const Backward<T> arguments{.dq = rows_of<T>(op.dq),
                              .dk = rows_of<T>(op.dk),
                              .dv = rows_of<T>(op.dv),
                              .dout = rows_of<const T>(op.dout),
                              .q = rows_of<const T>(op.q),
                              .k = rows_of<const T>(op.k),
                              .v = rows_of<const T>(op.v),
                              .log_sum_exp = op.log_sum_exp.data<float>(),
                              .delta = delta.data<float>(),
                              .visible = ranges_of(visible),
                              .seeing = ranges_of(seeing),
                              .queries = queries,
                              .keys = keys,
                              .heads = heads,
                              .group = heads / kv_heads,
                              .dim = dim,
                              .value_dim = value_dim,
                              .statistics_length = statistics_length(op.layout),
                              .scale = static_cast<float>(op.scale)};
  const std::int64_t shared = shared_bytes(dim, 2, value_dim);
  const auto q_kernel = backward_q_kernel<T, kColumns>;
  reserve_shared(q_kernel, shared);
  q_kernel<<<tiles(queries, heads), kThreads, static_cast<std::size_t>(shared), stream>>>(arguments);
  check_launch(AttentionBackward::kName);
  const auto kv_kernel = backward_kv_kernel<T, kColumns>;
  reserve_shared(kv_kernel, shared);
  kv_kernel<<<tiles(keys, kv_heads), kThreads, static_cast<std::size_t>(shared), stream>>>(arguments);
  check_launch(AttentionBackward::kName);
}

}  // namespace

void own_attention_forward(CudaQueue& queue, const AttentionForward& op) {
  const std::int64_t queries = op.q.size(0);
  Work work(queue.workspace(2 * Work::bytes(DType::i32, queries)));
  const VisibleTables visible = work.take_tables(queries);
  fill_visible_keys(queue, op.layout, op.window, visible);
  for_storage(op.q.dtype(), [&](auto storage) {
    for_columns(std::max(op.q.size(2), op.v.size(2)),
                [&](auto columns) { launch_forward<decltype(storage), columns()>(queue, op, visible); });
  });
}

void own_attention_backward(CudaQueue& queue, const AttentionBackward& op) {
  const std::int64_t queries = op.q.size(0), keys = op.k.size(0), rows = queries * op.q.size(1);
  Work work(queue.workspace(2 * Work::bytes(DType::i32, queries) + 2 * Work::bytes(DType::i32, keys) +
                            Work::bytes(DType::f32, rows)));
  const VisibleTables visible = work.take_tables(queries), seeing = work.take_tables(keys);
  const Tensor delta = work.take(DType::f32, rows);
  fill_visible_keys(queue, op.layout, op.window, visible);
  fill_visible_queries(queue, op.layout, op.window, seeing);
  for_storage(op.q.dtype(), [&](auto storage) {
    for_columns(std::max(op.q.size(2), op.v.size(2)), [&](auto columns) {
      launch_backward<decltype(storage), columns()>(queue, op, visible, seeing, delta);
    });
  });
}

}  // namespace verne::cuda
