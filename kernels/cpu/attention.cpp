#include "verne/ops/attention.hpp"

#include <limits>

#include "blas.hpp"
#include "support.hpp"

namespace verne {
namespace {

/// A document's tokens: its queries from `query` on and its keys from `key` on. Its positions count its keys;
/// the queries are the last of them.
struct Document {
  std::int64_t query, queries, key, keys;
  std::int64_t first_position() const { return keys - queries; }
  std::int64_t query_at(std::int64_t position) const { return query + position - first_position(); }
};

/// The documents that have queries, in order; throws InternalError where the tables are not what
/// AttentionLayout promises.
std::vector<Document> documents_of(const AttentionLayout& layout, std::int64_t queries, std::int64_t keys) {
  std::vector<Document> documents;
  const auto& [query, key] = layout;
  if (query.kind == DocumentLayout::Kind::uniform) {
    for (std::int64_t i = 0; i < query.count; ++i)
      documents.push_back({i * query.max_length, query.max_length, i * key.pitch, key.max_length});
    return documents;
  }
  const auto query_begins = query.begins.span<std::int32_t>(), query_ends = query.ends.span<std::int32_t>(),
             key_begins = key.begins.span<std::int32_t>(), key_ends = key.ends.span<std::int32_t>();
  std::int64_t queries_before = 0, keys_before = 0;
  for (std::size_t i = 0; i < query_begins.size(); ++i) {
    const Document document{.query = query_begins[i],
                            .queries = query_ends[i] - query_begins[i],
                            .key = key_begins[i],
                            .keys = key_ends[i] - key_begins[i]};
    require(document.query == queries_before && document.queries >= 0 && document.key >= keys_before &&
                document.keys >= 0,
            "document {} is queries {} to {} behind query {} and keys {} to {} behind key {}", i,
            query_begins[i], query_ends[i], queries_before, key_begins[i], key_ends[i], keys_before);
    require(document.queries <= query.max_length && document.keys <= key.max_length &&
                document.queries <= document.keys,
            "document {} has {} queries and {} keys; at most {} and {}, and no fewer keys than queries", i,
            document.queries, document.keys, query.max_length, key.max_length);
    queries_before = query_ends[i];
    keys_before = key_ends[i];
    if (document.queries > 0) documents.push_back(document);
  }
  require(queries_before == queries && keys_before <= keys, "documents to query {} of {} and key {} of {}",
          queries_before, queries, keys_before, keys);
  return documents;
}

/// Where log_sum_exp has a query and head.
struct StatisticsOrder {
  std::int64_t heads, length;  ///< of uniform documents; 0: packed

  StatisticsOrder(const AttentionLayout& layout, std::int64_t heads_)
      : heads(heads_),
        length(layout.query.kind == DocumentLayout::Kind::uniform ? layout.query.max_length : 0) {}
  std::int64_t at(std::int64_t token, std::int64_t head) const {
    if (length == 0) return token * heads + head;
    return (token / length * heads + head) * length + token % length;
  }
};

/// A run of queries of one document that is worked on at once, and the keys that any of them sees. Blocks
/// are cut at multiples of kRows positions, wherever the document's queries begin.
struct QueryBlock {
  static constexpr std::int64_t kRows = 64;
  std::int64_t begin, rows;  ///< positions of the queries
  std::int64_t first_key, keys;

  QueryBlock(std::int64_t begin_, std::int64_t length, std::int64_t window)
      : begin(begin_),
        rows(std::min(end_of(begin_), length) - begin_),
        first_key(window > 0 ? std::max<std::int64_t>(0, begin_ - window + 1) : 0),
        keys(begin_ + rows - first_key) {}

  /// Where the block from `begin` on ends, unless the document does before.
  static std::int64_t end_of(std::int64_t begin) { return (begin / kRows + 1) * kRows; }

  /// Keys that query `row` of the block sees, counted from first_key.
  std::pair<std::int64_t, std::int64_t> visible(std::int64_t row, std::int64_t window) const {
    const std::int64_t position = begin + row;
    const std::int64_t from = window > 0 ? std::max<std::int64_t>(0, position - window + 1) : 0;
    return {from - first_key, position + 1 - first_key};
  }
};

/// Rows of one head, [rows, d] with a stride, in the arithmetic type: in place, or widened into `buffer`.
template <class S>
BlasMatrix<const Real<S>> head_rows(const Tensor& x, std::int64_t token, std::int64_t rows, std::int64_t head,
                                    std::vector<Real<S>>& buffer) {
  const std::int64_t dim = x.size(2);
  const S* from = x.data<S>() + token * x.stride() + head * dim;
  if constexpr (std::is_same_v<S, Real<S>>) {
    return {from, x.stride()};
  } else {
    buffer.resize(static_cast<std::size_t>(rows * dim));
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < dim; ++c)
        buffer[static_cast<std::size_t>(r * dim + c)] = load(from[r * x.stride() + c]);
    }
    return {buffer.data(), dim};
  }
}

template <class S>
void put_rows(const Tensor& x, std::int64_t token, std::int64_t rows, std::int64_t head,
              const std::vector<Real<S>>& values) {
  const std::int64_t dim = x.size(2);
  S* to = x.data<S>() + token * x.stride() + head * dim;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < dim; ++c)
      to[r * x.stride() + c] = store<S>(values[static_cast<std::size_t>(r * dim + c)]);
  }
}

template <class R>
BlasMatrix<const R> transposed(BlasMatrix<const R> x) {
  return {x.data, x.stride, Transpose::yes};
}

/// One row of scores becomes probabilities (0 for invisible keys); returns the log-sum-exp.
template <class R>
R softmax_row(R* score, std::int64_t from, std::int64_t to, std::int64_t keys) {
  R most = -std::numeric_limits<R>::infinity();
#pragma omp simd reduction(max : most)
  for (std::int64_t j = from; j < to; ++j) most = score[j] > most ? score[j] : most;
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t j = from; j < to; ++j) {
    score[j] = exponential(score[j] - most);
    sum += static_cast<double>(score[j]);
  }
  const R inverse = static_cast<R>(1 / sum);
  for (std::int64_t j = from; j < to; ++j) score[j] *= inverse;
  std::fill(score, score + from, R{0});
  std::fill(score + to, score + keys, R{0});
  return static_cast<R>(static_cast<double>(most) + std::log(sum));
}

template <class S>
void forward(CpuQueue& queue, const AttentionForward& op) {
  using R = Real<S>;
  const std::int64_t heads = op.q.size(1), group = heads / op.k.size(1), dim = op.q.size(2),
                     value_dim = op.v.size(2);
  const StatisticsOrder statistics(op.layout, heads);
  struct Job {
    Document document;
    std::int64_t begin, head;
  };
  std::vector<Job> jobs;
  for (const Document& document : documents_of(op.layout, op.q.size(0), op.k.size(0))) {
    for (std::int64_t begin = document.first_position(); begin < document.keys;
         begin = QueryBlock::end_of(begin)) {
      for (std::int64_t head = 0; head < heads; ++head) jobs.push_back({document, begin, head});
    }
  }
  use_calling_thread_for_blas();
  queue.parallel_for(std::ssize(jobs), 1, [&](std::int64_t first, std::int64_t last) {
    std::vector<R> q_buffer, k_buffer, v_buffer, scores, out;
    for (std::int64_t i = first; i < last; ++i) {
      const auto& [document, begin, head] = jobs[static_cast<std::size_t>(i)];
      const QueryBlock block(begin, document.keys, op.window);
      const std::int64_t token = document.query_at(begin), key = document.key + block.first_key;
      const auto q = head_rows<S>(op.q, token, block.rows, head, q_buffer);
      const auto k = head_rows<S>(op.k, key, block.keys, head / group, k_buffer);
      const auto v = head_rows<S>(op.v, key, block.keys, head / group, v_buffer);
      scores.resize(static_cast<std::size_t>(block.rows * block.keys));
      gemm<R>(block.rows, block.keys, dim, static_cast<R>(op.scale), q, transposed(k), 0,
              {scores.data(), block.keys});
      for (std::int64_t row = 0; row < block.rows; ++row) {
        const auto [from, to] = block.visible(row, op.window);
        op.log_sum_exp.data<R>()[statistics.at(token + row, head)] =
            softmax_row(scores.data() + row * block.keys, from, to, block.keys);
      }
      out.resize(static_cast<std::size_t>(block.rows * value_dim));
      gemm<R>(block.rows, value_dim, block.keys, 1, {scores.data(), block.keys}, v, 0,
              {out.data(), value_dim});
      put_rows<S>(op.out, token, block.rows, head, out);
    }
  });
}

/// p becomes the probabilities again and dp the scores' gradient, row by row:
///   p = exp(s − log_sum_exp);  ds = p·(dp − Σ_c dout·out)·scale
template <class R>
void score_gradient_row(R* p, R* dp, R log_sum_exp, R correction, R scale, std::int64_t from, std::int64_t to,
                        std::int64_t keys) {
#pragma omp simd
  for (std::int64_t j = from; j < to; ++j) {
    p[j] = exponential(p[j] - log_sum_exp);
    dp[j] = p[j] * (dp[j] - correction) * scale;
  }
  for (R* row : {p, dp}) {
    std::fill(row, row + from, R{0});
    std::fill(row + to, row + keys, R{0});
  }
}

/// All query heads of one key/value head of one document, one after the other: dk and dv are sums over them.
template <class S>
void backward_of_document(const AttentionBackward& op, const Document& document, std::int64_t kv_head) {
  using R = Real<S>;
  const std::int64_t heads = op.q.size(1), group = heads / op.k.size(1), dim = op.q.size(2),
                     value_dim = op.v.size(2);
  const StatisticsOrder statistics(op.layout, heads);
  std::vector<R> k_buffer, v_buffer, q_buffer, dout_buffer, out_buffer, p, dp, dq,
      dk(static_cast<std::size_t>(document.keys * dim)),
      dv(static_cast<std::size_t>(document.keys * value_dim));
  const auto all_k = head_rows<S>(op.k, document.key, document.keys, kv_head, k_buffer);
  const auto all_v = head_rows<S>(op.v, document.key, document.keys, kv_head, v_buffer);
  for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (std::int64_t begin = document.first_position(); begin < document.keys;
         begin = QueryBlock::end_of(begin)) {
      const QueryBlock block(begin, document.keys, op.window);
      const std::int64_t token = document.query_at(begin);
      const auto q = head_rows<S>(op.q, token, block.rows, head, q_buffer);
      const auto dout = head_rows<S>(op.dout, token, block.rows, head, dout_buffer);
      const auto out = head_rows<S>(op.out, token, block.rows, head, out_buffer);
      const BlasMatrix<const R> k{all_k.data + block.first_key * all_k.stride, all_k.stride};
      const BlasMatrix<const R> v{all_v.data + block.first_key * all_v.stride, all_v.stride};
      const auto area = static_cast<std::size_t>(block.rows * block.keys);
      p.resize(area);
      dp.resize(area);
      gemm<R>(block.rows, block.keys, dim, static_cast<R>(op.scale), q, transposed(k), 0,
              {p.data(), block.keys});
      gemm<R>(block.rows, block.keys, value_dim, 1, dout, transposed(v), 0, {dp.data(), block.keys});
      for (std::int64_t row = 0; row < block.rows; ++row) {
        double correction = 0;
        for (std::int64_t c = 0; c < value_dim; ++c) {
          correction += static_cast<double>(dout.data[row * dout.stride + c]) *
                        static_cast<double>(out.data[row * out.stride + c]);
        }
        const auto [from, to] = block.visible(row, op.window);
        score_gradient_row(p.data() + row * block.keys, dp.data() + row * block.keys,
                           op.log_sum_exp.data<R>()[statistics.at(token + row, head)],
                           static_cast<R>(correction), static_cast<R>(op.scale), from, to, block.keys);
      }
      const BlasMatrix<const R> probabilities{p.data(), block.keys}, dscores{dp.data(), block.keys};
      // dv += pᵀ·dout;  dq = ds·k;  dk += dsᵀ·q
      gemm<R>(block.keys, value_dim, block.rows, 1, transposed(probabilities), dout, 1,
              {dv.data() + block.first_key * value_dim, value_dim});
      dq.resize(static_cast<std::size_t>(block.rows * dim));
      gemm<R>(block.rows, dim, block.keys, 1, dscores, k, 0, {dq.data(), dim});
      put_rows<S>(op.dq, token, block.rows, head, dq);
      gemm<R>(block.keys, dim, block.rows, 1, transposed(dscores), q, 1,
              {dk.data() + block.first_key * dim, dim});
    }
  }
  put_rows<S>(op.dk, document.key, document.keys, kv_head, dk);
  put_rows<S>(op.dv, document.key, document.keys, kv_head, dv);
}

/// Zeros in the rows of keys that none of the documents has.
template <class S>
void zero_other_keys(const Tensor& gradient, const std::vector<Document>& documents) {
  const auto zero = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t token = begin; token < end; ++token)
      std::fill_n(gradient.data<S>() + token * gradient.stride(), gradient.size(1) * gradient.size(2), S{});
  };
  std::int64_t before = 0;
  for (const Document& document : documents) {
    zero(before, document.key);
    before = document.key + document.keys;
  }
  zero(before, gradient.size(0));
}

template <class S>
void backward(CpuQueue& queue, const AttentionBackward& op) {
  const std::vector<Document> documents = documents_of(op.layout, op.q.size(0), op.k.size(0));
  const std::int64_t kv_heads = op.k.size(1);
  zero_other_keys<S>(op.dk, documents);
  zero_other_keys<S>(op.dv, documents);
  use_calling_thread_for_blas();
  queue.parallel_for(std::ssize(documents) * kv_heads, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      backward_of_document<S>(op, documents[static_cast<std::size_t>(i / kv_heads)], i % kv_heads);
    }
  });
}

}  // namespace

void launch(CpuQueue& queue, const AttentionForward& op) {
  with_storage(op.q.dtype(), [&](auto s) { forward<decltype(s)>(queue, op); });
}
void launch(CpuQueue& queue, const AttentionBackward& op) {
  with_storage(op.q.dtype(), [&](auto s) { backward<decltype(s)>(queue, op); });
}

}  // namespace verne
