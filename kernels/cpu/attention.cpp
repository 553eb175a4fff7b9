#include "verne/ops/attention.hpp"

#include <limits>

#include "blas.hpp"
#include "support.hpp"

namespace verne {
namespace {

struct Document {
  std::int64_t start, length;
};

std::vector<Document> documents_of(const DocumentLayout& layout, std::int64_t tokens) {
  std::vector<Document> documents;
  if (layout.kind == DocumentLayout::Kind::uniform) {
    for (std::int64_t i = 0; i < layout.count; ++i)
      documents.push_back({i * layout.max_length, layout.max_length});
    return documents;
  }
  const auto starts = layout.starts.span<std::int32_t>();
  require(starts.front() == 0 && starts.back() == tokens, "documents from token {} to {} of {}",
          starts.front(), starts.back(), tokens);
  for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
    const std::int64_t length = starts[i + 1] - starts[i];
    require(length >= 0 && length <= layout.max_length, "document {} has {} tokens; at most {}", i, length,
            layout.max_length);
    if (length > 0) documents.push_back({starts[i], length});
  }
  return documents;
}

/// A run of queries of one document that is worked on at once, and the keys that any of them sees.
struct QueryBlock {
  static constexpr std::int64_t kRows = 64;
  std::int64_t begin, rows;  ///< queries, counted within the document
  std::int64_t first_key, keys;

  QueryBlock(std::int64_t begin_, std::int64_t length, std::int64_t window)
      : begin(begin_),
        rows(std::min(kRows, length - begin_)),
        first_key(window > 0 ? std::max<std::int64_t>(0, begin_ - window + 1) : 0),
        keys(begin_ + rows - first_key) {}

  /// Keys that query `row` of the block sees, counted from first_key.
  std::pair<std::int64_t, std::int64_t> visible(std::int64_t row, std::int64_t window) const {
    const std::int64_t query = begin + row;
    const std::int64_t from = window > 0 ? std::max<std::int64_t>(0, query - window + 1) : 0;
    return {from - first_key, query + 1 - first_key};
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
  const std::int64_t heads = op.q.size(1), dim = op.q.size(2), group = heads / op.k.size(1);
  struct Job {
    Document document;
    std::int64_t begin, head;
  };
  std::vector<Job> jobs;
  for (const Document& document : documents_of(op.documents, op.q.size(0))) {
    for (std::int64_t begin = 0; begin < document.length; begin += QueryBlock::kRows) {
      for (std::int64_t head = 0; head < heads; ++head) jobs.push_back({document, begin, head});
    }
  }
  use_calling_thread_for_blas();
  queue.parallel_for(std::ssize(jobs), 1, [&](std::int64_t first, std::int64_t last) {
    std::vector<R> q_buffer, k_buffer, v_buffer, scores, out;
    for (std::int64_t i = first; i < last; ++i) {
      const auto& [document, begin, head] = jobs[static_cast<std::size_t>(i)];
      const QueryBlock block(begin, document.length, op.window);
      const std::int64_t token = document.start + begin, key = document.start + block.first_key;
      const auto q = head_rows<S>(op.q, token, block.rows, head, q_buffer);
      const auto k = head_rows<S>(op.k, key, block.keys, head / group, k_buffer);
      const auto v = head_rows<S>(op.v, key, block.keys, head / group, v_buffer);
      scores.resize(static_cast<std::size_t>(block.rows * block.keys));
      gemm<R>(block.rows, block.keys, dim, static_cast<R>(op.scale), q, transposed(k), 0,
              {scores.data(), block.keys});
      for (std::int64_t row = 0; row < block.rows; ++row) {
        const auto [from, to] = block.visible(row, op.window);
        op.log_sum_exp.data<R>()[(token + row) * heads + head] =
            softmax_row(scores.data() + row * block.keys, from, to, block.keys);
      }
      out.resize(static_cast<std::size_t>(block.rows * dim));
      gemm<R>(block.rows, dim, block.keys, 1, {scores.data(), block.keys}, v, 0, {out.data(), dim});
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
  const std::int64_t heads = op.q.size(1), dim = op.q.size(2), group = heads / op.k.size(1),
                     length = document.length;
  const auto size = static_cast<std::size_t>(length * dim);
  std::vector<R> k_buffer, v_buffer, q_buffer, dout_buffer, out_buffer, p, dp, dq, dk(size), dv(size);
  const auto all_k = head_rows<S>(op.k, document.start, length, kv_head, k_buffer);
  const auto all_v = head_rows<S>(op.v, document.start, length, kv_head, v_buffer);
  for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (std::int64_t begin = 0; begin < length; begin += QueryBlock::kRows) {
      const QueryBlock block(begin, length, op.window);
      const std::int64_t token = document.start + begin;
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
      gemm<R>(block.rows, block.keys, dim, 1, dout, transposed(v), 0, {dp.data(), block.keys});
      for (std::int64_t row = 0; row < block.rows; ++row) {
        double correction = 0;
        for (std::int64_t c = 0; c < dim; ++c) {
          correction += static_cast<double>(dout.data[row * dout.stride + c]) *
                        static_cast<double>(out.data[row * out.stride + c]);
        }
        const auto [from, to] = block.visible(row, op.window);
        score_gradient_row(p.data() + row * block.keys, dp.data() + row * block.keys,
                           op.log_sum_exp.data<R>()[(token + row) * heads + head], static_cast<R>(correction),
                           static_cast<R>(op.scale), from, to, block.keys);
      }
      const BlasMatrix<const R> probabilities{p.data(), block.keys}, dscores{dp.data(), block.keys};
      // dv += pᵀ·dout;  dq = ds·k;  dk += dsᵀ·q
      gemm<R>(block.keys, dim, block.rows, 1, transposed(probabilities), dout, 1,
              {dv.data() + block.first_key * dim, dim});
      dq.resize(static_cast<std::size_t>(block.rows * dim));
      gemm<R>(block.rows, dim, block.keys, 1, dscores, k, 0, {dq.data(), dim});
      put_rows<S>(op.dq, token, block.rows, head, dq);
      gemm<R>(block.keys, dim, block.rows, 1, transposed(dscores), q, 1,
              {dk.data() + block.first_key * dim, dim});
    }
  }
  put_rows<S>(op.dk, document.start, length, kv_head, dk);
  put_rows<S>(op.dv, document.start, length, kv_head, dv);
}

template <class S>
void backward(CpuQueue& queue, const AttentionBackward& op) {
  const std::vector<Document> documents = documents_of(op.documents, op.q.size(0));
  const std::int64_t kv_heads = op.k.size(1);
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
