#include "cuda/attention_own.hpp"
#include "cuda/device.cuh"

namespace verne::cuda {
namespace {

constexpr int kTile =
    32;  // rows that a block works on, and rows of the other side that it passes over at once
constexpr int kWarps = 8;
constexpr int kRows = kTile / kWarps;  // of a warp
constexpr int kThreads = kWarps * kWarp;

/// first[t]: the first key that query t sees. last[t]: one past the last query that sees key t.
__global__ void bounds_kernel(std::int32_t* first, std::int32_t* last, const std::int32_t* starts,
                              std::int64_t count, std::int64_t uniform_length, std::int64_t tokens,
                              std::int64_t window) {
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (token >= tokens) return;
  std::int64_t begin, end;
  if (uniform_length > 0) {
    begin = token / uniform_length * uniform_length;
    end = begin + uniform_length;
  } else {
    std::int64_t low = 0, high = count;  // starts[low] <= token < starts[high]
    while (high - low > 1) {
      const std::int64_t middle = (low + high) / 2;
      if (starts[middle] <= token) {
        low = middle;
      } else {
        high = middle;
      }
    }
    begin = starts[low];
    end = starts[high];
  }
  if (window > 0 && token - window + 1 > begin) begin = token - window + 1;
  if (window > 0 && token + window < end) end = token + window;
  first[token] = static_cast<std::int32_t>(begin);
  last[token] = static_cast<std::int32_t>(end);
}

constexpr std::size_t kMaxStrides = 12;
struct Strides {
  std::int64_t value[kMaxStrides];
};

/// A row of blocks (blockIdx.y) for each stride.
__global__ void tables_kernel(std::int64_t* offsets, std::int32_t* lengths, const std::int32_t* starts,
                              std::int64_t count, Strides strides) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i > count) return;
  offsets[blockIdx.y * (count + 1) + i] = starts[i] * strides.value[blockIdx.y];
  if (blockIdx.y == 0 && i < count) lengths[i] = starts[i + 1] - starts[i];
}

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

template <class T>
struct Rows {
  T* data;
  std::int64_t stride;
};
template <class T>
Rows<T> rows_of(const Tensor& tensor) {
  return {pointer<T>(tensor), tensor.stride()};
}

template <class T>
struct Forward {
  Rows<T> out;
  float* log_sum_exp;
  Rows<const T> q, k, v;
  const std::int32_t* first;
  std::int64_t tokens, heads, group, dim;
  float scale;
};

/// A block: 32 queries of one head; passes over their keys 32 at a time with a running softmax.
template <class T, int kColumns>
__global__ void __launch_bounds__(kThreads) forward_kernel(Forward<T> a) {
  extern __shared__ float shared[];
  const std::int64_t tile_floats = kTile * (a.dim + 1);
  float *q = shared, *k = q + tile_floats, *v = k + tile_floats;
  const std::int64_t head = blockIdx.y, begin = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const std::int64_t end = begin + kTile < a.tokens ? begin + kTile : a.tokens;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  load_tile(q, a.q.data, a.q.stride, head, a.dim, begin, end);

  float most[kRows], total[kRows], sums[kRows][kColumns];
  std::int64_t first[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t query = begin + warp * kRows + r;
    first[r] = query < end ? a.first[query] : a.tokens;
    most[r] = -INFINITY;
    total[r] = 0.0f;
#pragma unroll
    for (int t = 0; t < kColumns; ++t) sums[r][t] = 0.0f;
  }
  for (std::int64_t key = a.first[begin]; key < end; key += kTile) {
    __syncthreads();
    load_tile(k, a.k.data, a.k.stride, head / a.group, a.dim, key, end);
    if (a.out.data) load_tile(v, a.v.data, a.v.stride, head / a.group, a.dim, key, end);
    __syncthreads();
    float p[kRows];
    dots(p, q + warp * kRows * (a.dim + 1), k + lane * (a.dim + 1), a.dim);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const std::int64_t query = begin + warp * kRows + r;
      const bool visible = key + lane >= first[r] && key + lane <= query;
      const float score = visible ? p[r] * a.scale : -INFINITY;
      const float now = fmaxf(most[r], warp_max(score));
      const float keep = now == -INFINITY ? 1.0f : expf(most[r] - now);
      p[r] = visible ? expf(score - now) : 0.0f;
      total[r] = total[r] * keep + warp_sum(p[r]);
      most[r] = now;
#pragma unroll
      for (int t = 0; t < kColumns; ++t) sums[r][t] *= keep;
    }
    if (a.out.data) add_rows(sums, p, v, a.dim);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t query = begin + warp * kRows + r;
    if (query >= end) continue;
    if (lane == 0) a.log_sum_exp[query * a.heads + head] = most[r] + logf(total[r]);
    if (a.out.data)
      store_row(a.out.data + query * a.out.stride + head * a.dim, sums[r], 1.0f / total[r], a.dim);
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
  const std::int32_t *first, *last;
  std::int64_t tokens, heads, group, dim;
  float scale;
};

/// dq_i = Σ_j ds_ij·k_j with p = exp(s − log_sum_exp), ds = p·(dout·v − delta)·scale. Blocks as in the
/// forward.
template <class T, int kColumns>
__global__ void __launch_bounds__(kThreads) backward_q_kernel(Backward<T> a) {
  extern __shared__ float shared[];
  const std::int64_t tile_floats = kTile * (a.dim + 1);
  float *q = shared, *dout = q + tile_floats, *k = dout + tile_floats, *v = k + tile_floats;
  const std::int64_t head = blockIdx.y, begin = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const std::int64_t end = begin + kTile < a.tokens ? begin + kTile : a.tokens;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  load_tile(q, a.q.data, a.q.stride, head, a.dim, begin, end);
  load_tile(dout, a.dout.data, a.dout.stride, head, a.dim, begin, end);

  float log_sum_exp[kRows], delta[kRows], sums[kRows][kColumns];
  std::int64_t first[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t query = begin + warp * kRows + r;
    first[r] = query < end ? a.first[query] : a.tokens;
    log_sum_exp[r] = query < end ? a.log_sum_exp[query * a.heads + head] : 0.0f;
    delta[r] = query < end ? a.delta[query * a.heads + head] : 0.0f;
#pragma unroll
    for (int t = 0; t < kColumns; ++t) sums[r][t] = 0.0f;
  }
  for (std::int64_t key = a.first[begin]; key < end; key += kTile) {
    __syncthreads();
    load_tile(k, a.k.data, a.k.stride, head / a.group, a.dim, key, end);
    load_tile(v, a.v.data, a.v.stride, head / a.group, a.dim, key, end);
    __syncthreads();
    float s[kRows], dp[kRows];
    dots(s, q + warp * kRows * (a.dim + 1), k + lane * (a.dim + 1), a.dim);
    dots(dp, dout + warp * kRows * (a.dim + 1), v + lane * (a.dim + 1), a.dim);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const std::int64_t query = begin + warp * kRows + r;
      const bool visible = key + lane >= first[r] && key + lane <= query;
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

/// dv_j = Σ p_ij·dout_i, dk_j = Σ ds_ij·q_i over the queries of all heads that share the key. A block: 32
/// keys of one key/value head, in the order of heads and queries.
template <class T, int kColumns>
__global__ void __launch_bounds__(kThreads) backward_kv_kernel(Backward<T> a) {
  extern __shared__ float shared[];
  const std::int64_t tile_floats = kTile * (a.dim + 1);
  float *k = shared, *v = k + tile_floats, *q = v + tile_floats, *dout = q + tile_floats;
  const std::int64_t kv_head = blockIdx.y, begin = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const std::int64_t end = begin + kTile < a.tokens ? begin + kTile : a.tokens;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  load_tile(k, a.k.data, a.k.stride, kv_head, a.dim, begin, end);
  load_tile(v, a.v.data, a.v.stride, kv_head, a.dim, begin, end);

  float dk[kRows][kColumns], dv[kRows][kColumns];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int t = 0; t < kColumns; ++t) dk[r][t] = dv[r][t] = 0.0f;
  }
  const std::int64_t last = a.last[end - 1];
  for (std::int64_t head = kv_head * a.group; head < (kv_head + 1) * a.group; ++head) {
    for (std::int64_t tile = begin; tile < last; tile += kTile) {
      __syncthreads();
      load_tile(q, a.q.data, a.q.stride, head, a.dim, tile, last);
      load_tile(dout, a.dout.data, a.dout.stride, head, a.dim, tile, last);
      __syncthreads();
      const std::int64_t query = tile + lane;
      const bool present = query < last;
      const std::int64_t first = present ? a.first[query] : a.tokens;
      const float log_sum_exp = present ? a.log_sum_exp[query * a.heads + head] : 0.0f;
      const float delta = present ? a.delta[query * a.heads + head] : 0.0f;
      float p[kRows], ds[kRows];
      dots(p, k + warp * kRows * (a.dim + 1), q + lane * (a.dim + 1), a.dim);
      dots(ds, v + warp * kRows * (a.dim + 1), dout + lane * (a.dim + 1), a.dim);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const std::int64_t key = begin + warp * kRows + r;
        const bool visible = key >= first && key <= query;
        p[r] = visible ? expf(p[r] * a.scale - log_sum_exp) : 0.0f;
        ds[r] = visible ? p[r] * (ds[r] - delta) * a.scale : 0.0f;
      }
      add_rows(dv, p, dout, a.dim);
      add_rows(dk, ds, q, a.dim);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t key = begin + warp * kRows + r;
    if (key >= end) continue;
    store_row(a.dk.data + key * a.dk.stride + kv_head * a.dim, dk[r], 1.0f, a.dim);
    store_row(a.dv.data + key * a.dv.stride + kv_head * a.dim, dv[r], 1.0f, a.dim);
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

/// Device memory of the kernels, out of the queue's workspace.
struct Work {
  std::int32_t *first, *last;
  float *delta, *log_sum_exp;
};
Work work_of(CudaQueue& queue, const DocumentLayout& documents, std::int64_t tokens, std::int64_t heads,
             std::int64_t window) {
  const std::int64_t tables = round_up<std::int64_t>(bytes_of(DType::i32, tokens), 256);
  const std::int64_t rows = round_up<std::int64_t>(bytes_of(DType::f32, tokens * heads), 256);
  std::byte* memory = queue.workspace(2 * tables + 2 * rows);
  const Work work{reinterpret_cast<std::int32_t*>(memory), reinterpret_cast<std::int32_t*>(memory + tables),
                  reinterpret_cast<float*>(memory + 2 * tables),
                  reinterpret_cast<float*>(memory + 2 * tables + rows)};
  const bool uniform = documents.kind == DocumentLayout::Kind::uniform;
  bounds_kernel<<<static_cast<unsigned>(divide_round_up<std::int64_t>(tokens, 256)), 256, 0,
                  stream_of(queue)>>>(work.first, work.last,
                                      uniform ? nullptr : documents.starts.data<std::int32_t>(),
                                      documents.count, uniform ? documents.max_length : 0, tokens, window);
  check_launch("attention bounds");
  return work;
}

/// Grid of one block a tile and head.
dim3 tiles(std::int64_t tokens, std::int64_t heads) {
  return {static_cast<unsigned>(divide_round_up<std::int64_t>(tokens, kTile)), static_cast<unsigned>(heads)};
}

template <class T, int kColumns>
void launch_forward(CudaQueue& queue, const AttentionForward& op, const Work& work, float* log_sum_exp) {
  const std::int64_t tokens = op.q.size(0), heads = op.q.size(1), dim = op.q.size(2);
  const Forward<T> arguments{.out = rows_of<T>(op.out),
                             .log_sum_exp = log_sum_exp,
                             .q = rows_of<const T>(op.q),
                             .k = rows_of<const T>(op.k),
                             .v = rows_of<const T>(op.v),
                             .first = work.first,
                             .tokens = tokens,
                             .heads = heads,
                             .group = heads / op.k.size(1),
                             .dim = dim,
                             .scale = static_cast<float>(op.scale)};
  const std::int64_t shared = bytes_of(DType::f32, 3 * kTile * (dim + 1));
  const auto kernel = forward_kernel<T, kColumns>;
  reserve_shared(kernel, shared);
  kernel<<<tiles(tokens, heads), kThreads, static_cast<std::size_t>(shared), stream_of(queue)>>>(arguments);
  check_launch(AttentionForward::kName);
}

}  // namespace

void own_attention_forward(CudaQueue& queue, const AttentionForward& op) {
  const Work work = work_of(queue, op.documents, op.q.size(0), op.q.size(1), op.window);
  for_storage(op.q.dtype(), [&](auto storage) {
    for_columns(op.q.size(2), [&](auto columns) {
      launch_forward<decltype(storage), columns()>(queue, op, work, op.log_sum_exp.data<float>());
    });
  });
}

void own_attention_backward(CudaQueue& queue, const AttentionBackward& op) {
  const std::int64_t tokens = op.q.size(0), heads = op.q.size(1), kv_heads = op.k.size(1), dim = op.q.size(2);
  const Work work = work_of(queue, op.documents, tokens, heads, op.window);
  const cudaStream_t stream = stream_of(queue);
  for_storage(op.q.dtype(), [&](auto storage) {
    using T = decltype(storage);
    for_columns(dim, [&](auto columns) {
      const float* log_sum_exp = pointer<float>(op.log_sum_exp);
      if (!log_sum_exp) {
        const AttentionForward again{.q = op.q,
                                     .k = op.k,
                                     .v = op.v,
                                     .documents = op.documents,
                                     .scale = op.scale,
                                     .window = op.window};
        launch_forward<T, columns()>(queue, again, work, work.log_sum_exp);
        log_sum_exp = work.log_sum_exp;
      }
      const auto blocks = static_cast<unsigned>(divide_round_up<std::int64_t>(tokens * heads, kWarps));
      delta_kernel<T><<<blocks, kThreads, 0, stream>>>(work.delta, rows_of<const T>(op.dout),
                                                       rows_of<const T>(op.out), tokens, heads, dim);
      check_launch("attention delta");
      const Backward<T> arguments{.dq = rows_of<T>(op.dq),
                                  .dk = rows_of<T>(op.dk),
                                  .dv = rows_of<T>(op.dv),
                                  .dout = rows_of<const T>(op.dout),
                                  .q = rows_of<const T>(op.q),
                                  .k = rows_of<const T>(op.k),
                                  .v = rows_of<const T>(op.v),
                                  .log_sum_exp = log_sum_exp,
                                  .delta = work.delta,
                                  .first = work.first,
                                  .last = work.last,
                                  .tokens = tokens,
                                  .heads = heads,
                                  .group = heads / kv_heads,
                                  .dim = dim,
                                  .scale = static_cast<float>(op.scale)};
      const std::int64_t shared = bytes_of(DType::f32, 4 * kTile * (dim + 1));
      const auto q_kernel = backward_q_kernel<T, columns()>;
      reserve_shared(q_kernel, shared);
      q_kernel<<<tiles(tokens, heads), kThreads, static_cast<std::size_t>(shared), stream>>>(arguments);
      check_launch(AttentionBackward::kName);
      const auto kv_kernel = backward_kv_kernel<T, columns()>;
      reserve_shared(kv_kernel, shared);
      kv_kernel<<<tiles(tokens, kv_heads), kThreads, static_cast<std::size_t>(shared), stream>>>(arguments);
      check_launch(AttentionBackward::kName);
    });
  });
}

void fill_document_tables(CudaQueue& queue, const Tensor& starts, std::span<const std::int64_t> strides,
                          const Tensor& offsets, const Tensor& lengths) {
  const std::int64_t count = starts.count() - 1;
  require(strides.size() <= kMaxStrides, "{} strides; the table kernel takes {}", strides.size(),
          kMaxStrides);
  Strides values{};
  std::copy(strides.begin(), strides.end(), values.value);
  const dim3 blocks(static_cast<unsigned>(divide_round_up<std::int64_t>(count + 1, 256)),
                    static_cast<unsigned>(strides.size()));
  tables_kernel<<<blocks, 256, 0, stream_of(queue)>>>(
      offsets.data<std::int64_t>(), lengths.data<std::int32_t>(), starts.data<std::int32_t>(), count, values);
  check_launch("attention document tables");
}

}  // namespace verne::cuda
