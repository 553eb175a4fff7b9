#include "verne/ops/attention.hpp"

#include <algorithm>

#include "checks.hpp"
#include "verne/base/checked.hpp"

namespace verne {
namespace {

void check_heads(const Checks& check, std::string_view argument, const Tensor& tensor, std::int64_t tokens,
                 std::int64_t heads, std::int64_t dim, const Tensor& q) {
  check.shape(argument, tensor, {tokens, heads, dim});
  check.type(argument, tensor, q.dtype());
}

void check_documents(const Checks& check, const DocumentLayout& documents, std::string_view begins,
                     std::string_view ends) {
  check.that(documents.count >= 0 && documents.max_length >= 0, "{} documents of at most {} tokens",
             documents.count, documents.max_length);
  if (documents.kind == DocumentLayout::Kind::uniform) {
    check.absent(begins, documents.begins, "beside uniform documents");
    check.absent(ends, documents.ends, "beside uniform documents");
    check.that(documents.pitch >= documents.max_length, "documents of {} tokens every {} tokens",
               documents.max_length, documents.pitch);
  } else {
    check.dense(begins, documents.begins, {documents.count});
    check.type(begins, documents.begins, DType::i32);
    check.dense(ends, documents.ends, {documents.count});
    check.type(ends, documents.ends, DType::i32);
  }
}

void check_layout(const Checks& check, const AttentionLayout& layout, std::int64_t queries,
                  std::int64_t keys) {
  const auto& [query, key] = layout;
  check.that(query.kind == key.kind && query.count == key.count,
             "{} documents of queries and {} of keys, or not of one kind", query.count, key.count);
  check_documents(check, query, "layout.query.begins", "layout.query.ends");
  check_documents(check, key, "layout.key.begins", "layout.key.ends");
  check.that(query.max_length <= key.max_length, "documents of at most {} queries and {} keys",
             query.max_length, key.max_length);
  if (query.kind == DocumentLayout::Kind::uniform) {
    check.that(query.count * query.max_length == queries, "{} documents of {} tokens are not {} queries",
               query.count, query.max_length, queries);
    check.that(query.count <= 1 || query.pitch == query.max_length,
               "documents of {} queries every {} queries", query.max_length, query.pitch);
    check.that(key.count == 0 || (key.count - 1) * key.pitch + key.max_length <= keys,
               "{} documents of {} tokens every {} tokens are more than {} keys", key.count, key.max_length,
               key.pitch, keys);
  } else {
    check.that(query.count * query.max_length >= queries,
               "{} documents of at most {} tokens cannot hold {} queries", query.count, query.max_length,
               queries);
  }
}

template <class Attention>
void check_attention(const Checks& check, const Attention& op) {
  check.rank("q", op.q, 3);
  check.real("q", op.q);
  check.rank("k", op.k, 3);
  check.rank("v", op.v, 3);
  const std::int64_t queries = op.q.size(0), keys = op.k.size(0), heads = op.q.size(1),
                     kv_heads = op.k.size(1), dim = op.q.size(2), value_dim = op.v.size(2);
  check.that(kv_heads > 0 && heads % kv_heads == 0, "{} query heads over {} key/value heads", heads,
             kv_heads);
  check.that(dim > 0, "q {} has heads without components", op.q.shape().text());
  check.that(value_dim > 0, "v {} has heads without components", op.v.shape().text());
  check_heads(check, "k", op.k, keys, kv_heads, dim, op.q);
  check_heads(check, "v", op.v, keys, kv_heads, value_dim, op.q);
  check_heads(check, "out", op.out, queries, heads, value_dim, op.q);
  check.dense("log_sum_exp", op.log_sum_exp, {queries * heads});
  check.type("log_sum_exp", op.log_sum_exp, statistics_type(op.q.dtype()));
  check_layout(check, op.layout, queries, keys);
  check.that(op.window >= 0, "window {}", op.window);
}

/// Σ of min(i, window) for i from 1 to n.
std::int64_t seen_by_first(std::int64_t n, std::int64_t window) {
  if (window == 0 || window >= n) return n * (n + 1) / 2;
  return window * (window + 1) / 2 + (n - window) * window;
}

/// Pairs (query, visible key) of all documents. Packed ones are on the device and count as if as long as they
/// may be: at most, queries see each other in documents of full length, and beside that every key without a
/// query of its own (there are `earlier`) is seen by as many queries as a document may have; but none sees
/// more than a document's keys.
double most_visible_pairs(const AttentionLayout& layout, std::int64_t queries, std::int64_t keys,
                          std::int64_t window) {
  const auto& [query, key] = layout;
  if (query.kind == DocumentLayout::Kind::uniform) {
    return static_cast<double>(query.count) *
           static_cast<double>(visible_pairs(query.max_length, key.max_length, window));
  }
  const std::int64_t length = std::max<std::int64_t>(query.max_length, 1);
  const std::int64_t earlier = std::max<std::int64_t>(keys - queries, 0);
  const std::int64_t visible = window > 0 ? std::min(window, key.max_length) : key.max_length;
  const double among_queries =
      static_cast<double>(queries / length) * static_cast<double>(seen_by_first(length, window)) +
      static_cast<double>(seen_by_first(queries % length, window));
  return std::min(among_queries + static_cast<double>(earlier) * static_cast<double>(query.max_length),
                  static_cast<double>(queries) * static_cast<double>(visible));
}

/// Multiplications and additions of the forward's two products, 2·(d + v_d) for each pair and head; the
/// backward has three of width d (scores again, dq, dk) and two of v_d (dv, the probabilities' gradient).
template <class Attention>
double flops(const Attention& op, std::int64_t products_d, std::int64_t products_v) {
  return 2 * most_visible_pairs(op.layout, op.q.size(0), op.k.size(0), op.window) *
         static_cast<double>(op.q.size(1)) *
         static_cast<double>(products_d * op.q.size(2) + products_v * op.v.size(2));
}

}  // namespace

DocumentLayout uniform_documents(std::int64_t count, std::int64_t length) {
  return {.kind = DocumentLayout::Kind::uniform,
          .count = count,
          .max_length = length,
          .pitch = length,
          .begins = {},
          .ends = {}};
}

DocumentLayout packed_documents(const Tensor& starts, std::int64_t max_length) {
  const std::int64_t count = starts.count() - 1;
  return {.kind = DocumentLayout::Kind::packed,
          .count = count,
          .max_length = max_length,
          .pitch = 0,
          .begins = starts.rows(0, count),
          .ends = starts.rows(1, count)};
}

AttentionLayout self_attention(const DocumentLayout& documents) {
  return {documents, documents};
}

bool is_self_attention(const AttentionLayout& layout) {
  const auto& [query, key] = layout;
  return query.kind == key.kind && query.count == key.count && query.max_length == key.max_length &&
         query.pitch == key.pitch && query.begins.raw() == key.begins.raw() &&
         query.ends.raw() == key.ends.raw();
}

std::int64_t visible_pairs(std::int64_t queries, std::int64_t keys, std::int64_t window) {
  require(queries >= 0 && queries <= keys && window >= 0, "{} queries of a document of {} keys, window {}",
          queries, keys, window);
  return seen_by_first(keys, window) - seen_by_first(keys - queries, window);
}

std::int64_t workspace_bound(const AttentionBackward& op, Determinism determinism) {
  const auto& [query, key] = op.layout;
  const std::int64_t queries = op.q.size(0), keys = op.k.size(0), heads = op.q.size(1),
                     kv_heads = op.k.size(1), dim = op.q.size(2), widths = dim + op.v.size(2);
  // Packed documents' dq keeps the row stride of the output.
  const std::int64_t dq = queries * std::max(op.dq.stride(), heads * dim);
  const std::int64_t accumulators = 4 * (dq + keys * heads * widths + queries * heads);
  const std::int64_t gathered = bytes_of(op.dk.dtype(), keys * kv_heads * widths);
  // Of each document offsets for at most nine tensors and two lengths, thrice at most: documents of more than
  // half the longest, of more than a quarter … have tables of their own. Or our own kernels' ranges.
  const std::int64_t tables = std::max(3 * (query.count + 1) * (9 * 8 + 2 * 4), 8 * (queries + keys));
  std::int64_t matrices = 0;
  if (determinism == Determinism::deterministic) {
    const std::int64_t area =
        round_up<std::int64_t>(query.max_length, 64) * round_up<std::int64_t>(key.max_length, 64);
    const std::int64_t of_kv_head = 2 * area * (heads / kv_heads);
    matrices = std::min(query.count * kv_heads * of_kv_head, std::max(kScoreMatrixBytes, of_kv_head));
  }
  constexpr std::int64_t kSlack = std::int64_t{1} << 20;
  return accumulators + gathered + tables + matrices + kSlack;
}

void AttentionForward::check() const {
  check_attention(Checks(kName), *this);
}
Cost AttentionForward::cost() const {
  return {.flops = flops(*this, 1, 1), .bytes = bytes({q, k, v, out, log_sum_exp})};
}
Access AttentionForward::access() const {
  return {
      .reads = present({q, k, v, layout.query.begins, layout.query.ends, layout.key.begins, layout.key.ends}),
      .writes = present({out, log_sum_exp})};
}

void AttentionBackward::check() const {
  const Checks check(kName);
  check_attention(check, *this);
  check_heads(check, "dout", dout, q.size(0), q.size(1), v.size(2), q);
  check_heads(check, "dq", dq, q.size(0), q.size(1), q.size(2), q);
  check_heads(check, "dk", dk, k.size(0), k.size(1), k.size(2), q);
  check_heads(check, "dv", dv, v.size(0), v.size(1), v.size(2), q);
}
Cost AttentionBackward::cost() const {
  return {.flops = flops(*this, 3, 2), .bytes = bytes({q, k, v, out, dout, dq, dk, dv, log_sum_exp})};
}
Access AttentionBackward::access() const {
  return {.reads = present({dout, q, k, v, out, log_sum_exp, layout.query.begins, layout.query.ends,
                            layout.key.begins, layout.key.ends}),
          .writes = present({dq, dk, dv})};
}

}  // namespace verne
