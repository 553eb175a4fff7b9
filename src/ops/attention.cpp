#include "verne/ops/attention.hpp"

#include <algorithm>

#include "checks.hpp"

namespace verne {
namespace {

void check_heads(const Checks& check, std::string_view argument, const Tensor& tensor, std::int64_t heads,
                 const Tensor& q) {
  check.shape(argument, tensor, {q.size(0), heads, q.size(2)});
  check.type(argument, tensor, q.dtype());
}

void check_documents(const Checks& check, const DocumentLayout& documents, std::int64_t tokens) {
  check.that(documents.count >= 0 && documents.max_length >= 0, "{} documents of at most {} tokens",
             documents.count, documents.max_length);
  check.dense("documents.starts", documents.starts, {documents.count + 1});
  check.type("documents.starts", documents.starts, DType::i32);
  if (documents.kind == DocumentLayout::Kind::uniform) {
    check.that(documents.count * documents.max_length == tokens,
               "{} documents of {} tokens are not {} tokens", documents.count, documents.max_length, tokens);
  } else {
    check.that(documents.count * documents.max_length >= tokens,
               "{} documents of at most {} tokens cannot hold {} tokens", documents.count,
               documents.max_length, tokens);
  }
}

template <class Attention>
void check_attention(const Checks& check, const Attention& op) {
  check.rank("q", op.q, 3);
  check.real("q", op.q);
  check.rank("k", op.k, 3);
  const std::int64_t heads = op.q.size(1), kv_heads = op.k.size(1);
  check.that(kv_heads > 0 && heads % kv_heads == 0, "{} query heads over {} key/value heads", heads,
             kv_heads);
  check.that(op.q.size(2) > 0, "q {} has heads without components", op.q.shape().text());
  check_heads(check, "k", op.k, kv_heads, op.q);
  check_heads(check, "v", op.v, kv_heads, op.q);
  check_heads(check, "out", op.out, heads, op.q);
  check.dense("log_sum_exp", op.log_sum_exp, {op.q.size(0) * heads});
  check.type("log_sum_exp", op.log_sum_exp, statistics_type(op.q.dtype()));
  check_documents(check, op.documents, op.q.size(0));
  check.that(op.window >= 0, "window {}", op.window);
}

/// Pairs (query, visible key). Packed documents are on the device: counted as if as long as they may be.
double visible_pairs(const DocumentLayout& documents, std::int64_t tokens, std::int64_t window) {
  const auto pairs = [window](std::int64_t length) {
    const auto n = static_cast<double>(length);
    if (window == 0 || window >= length) return n * (n + 1) / 2;
    const auto w = static_cast<double>(window);
    return w * (w + 1) / 2 + (n - w) * w;
  };
  const std::int64_t length = std::max<std::int64_t>(documents.max_length, 1);
  return static_cast<double>(tokens / length) * pairs(length) + pairs(tokens % length);
}

}  // namespace

void AttentionForward::check() const {
  check_attention(Checks(kName), *this);
}
Cost AttentionForward::cost() const {
  const double pairs = visible_pairs(documents, q.size(0), window) * static_cast<double>(q.size(1));
  return {.flops = 4 * pairs * static_cast<double>(q.size(2)), .bytes = bytes({q, k, v, out, log_sum_exp})};
}
Access AttentionForward::access() const {
  return {.reads = present({q, k, v, documents.starts}), .writes = present({out, log_sum_exp})};
}

void AttentionBackward::check() const {
  const Checks check(kName);
  check_attention(check, *this);
  check_heads(check, "dout", dout, q.size(1), q);
  check_heads(check, "dq", dq, q.size(1), q);
  check_heads(check, "dk", dk, k.size(1), q);
  check_heads(check, "dv", dv, k.size(1), q);
}
Cost AttentionBackward::cost() const {
  const double pairs = visible_pairs(documents, q.size(0), window) * static_cast<double>(q.size(1));
  return {.flops = 10 * pairs * static_cast<double>(q.size(2)),
          .bytes = bytes({q, k, v, out, dout, dq, dk, dv, log_sum_exp})};
}
Access AttentionBackward::access() const {
  return {.reads = present({dout, q, k, v, out, log_sum_exp, documents.starts}),
          .writes = present({dq, dk, dv})};
}

}  // namespace verne
