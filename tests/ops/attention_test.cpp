#include "verne/ops/attention.hpp"

#include <gmock/gmock.h>

#include "cases_attention.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {
namespace {

using enum DocumentLayout::Kind;
using enum Rows;

/// A shape's tensors in float64.
class AttentionTest : public ::testing::TestWithParam<AttentionShape> {
 protected:
  CpuQueue queue{2};
  Workbench bench{queue};
  AttentionShape shape = GetParam();
  AttentionDocuments documents{shape};
  AttentionLayout layout = documents.layout(bench, shape);
  std::int64_t heads = shape.query_heads, kv_heads = shape.kv_heads, dim = shape.head_dim,
               value_dim = shape.value_width(), queries = documents.queries;
  double scale = 0.7;
  Tensor q, k, v, out, log_sum_exp;

  void SetUp() override {
    std::uint32_t seed = 0;
    const auto made =
        make_qkv(shape, documents, [&](Shape s) { return bench.random(DType::f64, s, ++seed); });
    q = made[0];
    k = made[1];
    v = made[2];
    out = bench.poisoned(DType::f64, {queries, heads, value_dim},
                         heads * value_dim + (shape.rows == strided ? 3 : 0));
    log_sum_exp = bench.poisoned(DType::f64, {queries * heads});
  }
  void forward() {
    run(queue, AttentionForward{.out = out,
                                .log_sum_exp = log_sum_exp,
                                .q = q,
                                .k = k,
                                .v = v,
                                .layout = layout,
                                .scale = scale,
                                .window = shape.window});
  }
};

TEST_P(AttentionTest, ForwardIsTheFormula) {
  forward();
  const Values qv = bench.values(q), kv = bench.values(k), vv = bench.values(v);
  const auto row = [](const Values& x, std::int64_t token, std::int64_t head, std::int64_t all_heads,
                      std::int64_t width) {
    const auto begin = x.begin() + (token * all_heads + head) * width;
    return Values(begin, begin + width);
  };
  Values expected, expected_sums(static_cast<std::size_t>(queries * heads));
  for (std::size_t document = 0; document < shape.lengths.size(); ++document) {
    const auto first_key = static_cast<std::int64_t>(documents.key_begins[document]),
               keys = static_cast<std::int64_t>(documents.key_ends[document]) - first_key,
               first_query = static_cast<std::int64_t>(documents.query_starts[document]);
    const std::int64_t length = shape.lengths[document];
    for (std::int64_t j = 0; j < length; ++j) {
      const std::int64_t position = j + keys - length;
      for (std::int64_t head = 0; head < heads; ++head) {
        Values mix(static_cast<std::size_t>(value_dim));
        double total = 0;
        for (std::int64_t p = 0; p <= position; ++p) {
          if (shape.window > 0 && position - p >= shape.window) continue;
          const std::int64_t kv_head = head / (heads / kv_heads);
          const double weight = std::exp(scale * dot(row(qv, first_query + j, head, heads, dim),
                                                     row(kv, first_key + p, kv_head, kv_heads, dim)));
          const Values value = row(vv, first_key + p, kv_head, kv_heads, value_dim);
          total += weight;
          for (std::size_t c = 0; c < mix.size(); ++c) mix[c] += weight * value[c];
        }
        for (const double sum : mix) expected.push_back(sum / total);
        const std::int64_t at = shape.kind == packed
                                    ? (first_query + j) * heads + head
                                    : (static_cast<std::int64_t>(document) * heads + head) * length + j;
        expected_sums[static_cast<std::size_t>(at)] = std::log(total);
      }
    }
  }
  expect_close(bench.values(out), expected, tolerance(DType::f64).formula);
  expect_close(bench.values(log_sum_exp), expected_sums, tolerance(DType::f64).formula, "log_sum_exp");
  bench.expect_guards_intact();
}

TEST_P(AttentionTest, BackwardIsTheGradient) {
  forward();
  const Tensor dout = bench.random(DType::f64, out.shape(), 100);
  const Values upstream = bench.values(dout);
  const auto [dq, dk, dv] =
      make_qkv(shape, documents, [&](Shape s) { return bench.poisoned(DType::f64, s); });
  run(queue, AttentionBackward{.dq = dq,
                               .dk = dk,
                               .dv = dv,
                               .dout = dout,
                               .q = q,
                               .k = k,
                               .v = v,
                               .out = out,
                               .log_sum_exp = log_sum_exp,
                               .layout = layout,
                               .scale = scale,
                               .window = shape.window});
  bench.expect_guards_intact();
  const auto loss = [&] {
    forward();
    return dot(bench.values(out), upstream);
  };
  expect_gradient(q, bench.values(dq), loss, "dq");
  expect_gradient(k, bench.values(dk), loss, "dk");
  expect_gradient(v, bench.values(dv), loss, "dv");
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionTest,
    ::testing::Values(
        AttentionShape{{1}, 1, 1, 2, 0, uniform}, AttentionShape{{5, 5}, 4, 2, 3, 0, uniform, strided},
        AttentionShape{{7, 1, 3, 0, 0}, 2, 1, 4, 0, packed},
        AttentionShape{{9, 4}, 3, 3, 2, 3, packed, strided}, AttentionShape{{6}, 2, 2, 2, 1, packed},
        // Longer than a block of queries, with and without a window across blocks.
        AttentionShape{{150, 70}, 2, 1, 4, 0, packed}, AttentionShape{{200}, 2, 2, 4, 77, uniform},
        // Values of another width than keys.
        AttentionShape{{5, 0, 3}, 4, 2, 2, 0, packed, strided, 5},
        AttentionShape{{4, 4}, 2, 1, 5, 3, uniform, contiguous, 2},
        // Queries of a chunk: keys before it, empty documents, documents without queries, keys of none.
        AttentionShape{{3, 3}, 4, 2, 3, 0, uniform, strided, 0, {4, 4}, {0, 2, 2}},
        AttentionShape{{2}, 2, 2, 2, 4, uniform, strided, 3, {7}, {0, 1}},
        AttentionShape{{0, 5, 1, 0, 4}, 2, 1, 3, 0, packed, strided, 0, {0, 6, 2, 0, 0}, {3, 0, 0, 1, 0, 2}},
        AttentionShape{{4, 0, 3}, 4, 2, 2, 0, packed, contiguous, 3, {0, 5, 1}, {0, 0, 1, 0}},
        AttentionShape{{3, 2, 1}, 2, 1, 2, 3, packed, strided, 0, {9, 1, 5}, {1, 0, 2, 0}},
        AttentionShape{{2, 5}, 2, 2, 2, 1, packed, contiguous, 2, {6, 0}},
        // Chunks that begin and end within blocks, whose windows do too.
        AttentionShape{{90, 40}, 2, 1, 4, 0, packed, contiguous, 0, {100, 70}, {0, 3, 0}},
        AttentionShape{{90, 40}, 2, 1, 2, 50, packed, strided, 3, {100, 70}, {0, 3, 0}}));

/// Rows [begin, begin + count) of every document of a whole run's queries, against the keys up to there:
/// float32, one head.
struct Chunked {
  Values out, dq, dk, dv, log_sum_exp;
};
Chunked run_chunk(const std::vector<std::int64_t>& begins, const std::vector<std::int64_t>& counts,
                  const Values& qkv, const Values& upstream, const std::vector<std::int64_t>& starts,
                  std::int64_t window) {
  constexpr std::int64_t kDim = 8;
  CpuQueue queue(2);
  Workbench bench(queue);
  const std::int64_t tokens = starts.back();
  const Tensor all = bench.of(DType::f32, {tokens, 3 * kDim}, qkv);
  const auto columns = [&](const Tensor& rows, std::int64_t which) {
    return rows.columns(which * kDim, kDim).view({rows.size(0), 1, kDim});
  };
  const Values all_q = bench.values(columns(all, 0));
  Values q, dout, query_starts{0}, key_begins, key_ends;
  std::int64_t longest = 0, most_keys = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const std::int64_t first = (starts[i] + begins[i]) * kDim, last = first + counts[i] * kDim;
    q.insert(q.end(), all_q.begin() + first, all_q.begin() + last);
    dout.insert(dout.end(), upstream.begin() + first, upstream.begin() + last);
    query_starts.push_back(query_starts.back() + static_cast<double>(counts[i]));
    const std::int64_t keys = counts[i] == 0 ? 0 : begins[i] + counts[i];
    key_begins.push_back(static_cast<double>(starts[i]));
    key_ends.push_back(static_cast<double>(starts[i] + keys));
    longest = std::max(longest, counts[i]);
    most_keys = std::max(most_keys, keys);
  }
  const auto queries = static_cast<std::int64_t>(query_starts.back());
  const Shape shape{queries, 1, kDim};
  const AttentionLayout layout{packed_documents(bench.integers(query_starts), longest),
                               {.kind = packed,
                                .count = std::ssize(counts),
                                .max_length = most_keys,
                                .pitch = 0,
                                .begins = bench.integers(key_begins),
                                .ends = bench.integers(key_ends)}};
  const AttentionForward forward{.out = bench.poisoned(DType::f32, shape),
                                 .log_sum_exp = bench.poisoned(DType::f32, {queries}),
                                 .q = bench.of(DType::f32, shape, q),
                                 .k = columns(all, 1),
                                 .v = columns(all, 2),
                                 .layout = layout,
                                 .scale = 0.3,
                                 .window = window};
  run(queue, forward);
  const Tensor dq = bench.poisoned(DType::f32, shape), dk = bench.poisoned(DType::f32, {tokens, 1, kDim}),
               dv = bench.poisoned(DType::f32, {tokens, 1, kDim});
  run(queue, AttentionBackward{.dq = dq,
                               .dk = dk,
                               .dv = dv,
                               .dout = bench.of(DType::f32, shape, dout),
                               .q = forward.q,
                               .k = forward.k,
                               .v = forward.v,
                               .out = forward.out,
                               .log_sum_exp = forward.log_sum_exp,
                               .layout = layout,
                               .scale = forward.scale,
                               .window = window});
  return {bench.values(forward.out), bench.values(dq), bench.values(dk), bench.values(dv),
          bench.values(forward.log_sum_exp)};
}

// A chunk's results are those of the whole, to the last bit where it is cut at a block's edge; the gradients
// of keys are sums over chunks.
TEST(AttentionChunks, TogetherAreTheWhole) {
  const std::vector<std::int64_t> starts{0, 200, 207, 500};
  const Values qkv = random_values(500 * 24, 1), upstream = random_values(500 * 8, 2);
  for (const std::int64_t window : {0, 90}) {
    const Chunked whole = run_chunk({0, 0, 0}, {200, 7, 293}, qkv, upstream, starts, window);
    const Chunked first = run_chunk({0, 0, 0}, {128, 7, 64}, qkv, upstream, starts, window),
                  second = run_chunk({128, 0, 64}, {72, 0, 229}, qkv, upstream, starts, window);
    const auto put = [](Values& all, const Values& part, std::int64_t at, std::int64_t from,
                        std::int64_t tokens) { std::copy_n(part.begin() + from, tokens, all.begin() + at); };
    const auto joined = [&](const Values& a, const Values& b, std::int64_t width) {
      Values all(static_cast<std::size_t>(500 * width));
      put(all, a, 0, 0, 128 * width);
      put(all, b, 128 * width, 0, 72 * width);
      put(all, a, 200 * width, 128 * width, 7 * width);
      put(all, a, 207 * width, 135 * width, 64 * width);
      put(all, b, 271 * width, 72 * width, 229 * width);
      return all;
    };
    EXPECT_EQ(joined(first.out, second.out, 8), whole.out);
    EXPECT_EQ(joined(first.log_sum_exp, second.log_sum_exp, 1), whole.log_sum_exp);
    EXPECT_EQ(joined(first.dq, second.dq, 8), whole.dq);
    const auto sum = [](Values a, const Values& b) {
      for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
      return a;
    };
    expect_close(sum(first.dk, second.dk), whole.dk, 1e-6, "dk");
    expect_close(sum(first.dv, second.dv), whole.dv, 1e-6, "dv");
    // Cut within a block: from the next block on.
    const Chunked odd = run_chunk({100, 0, 0}, {100, 0, 0}, qkv, upstream, starts, window);
    EXPECT_EQ(Values(odd.out.begin() + 28 * 8, odd.out.end()),
              Values(whole.out.begin() + 128 * 8, whole.out.begin() + 200 * 8));
  }
}

// A document's bits depend neither on where it lies nor on what is beside it.
TEST(AttentionChunks, DocumentsAreTheSameAnywhere) {
  const Values qkv = random_values(300 * 24, 3), upstream = random_values(300 * 8, 4);
  const auto later = [](const Values& values, std::int64_t tokens) {
    return Values(values.begin() + 45 * std::ssize(values) / tokens, values.end());
  };
  const Chunked moved = run_chunk({0, 20}, {45, 235}, qkv, upstream, {0, 45, 300}, 70);
  const Chunked alone = run_chunk({20}, {235}, later(qkv, 300), later(upstream, 300), {0, 255}, 70);
  EXPECT_EQ(later(moved.out, 280), alone.out);
  EXPECT_EQ(later(moved.log_sum_exp, 280), alone.log_sum_exp);
  EXPECT_EQ(later(moved.dq, 280), alone.dq);
  EXPECT_EQ(later(moved.dk, 300), alone.dk);
  EXPECT_EQ(later(moved.dv, 300), alone.dv);
}

TEST(Attention, WithoutQueriesGivesKeysNoGradient) {
  CpuQueue queue;
  for (const Output& output : run_attention_without_queries(queue, DType::f32))
    EXPECT_EQ(output.values, Values(output.values.size(), 0.0)) << output.name;
}

TEST(Attention, SeesNoOtherDocument) {
  CpuQueue queue;
  const auto first_document = [&](std::uint32_t seed_of_second) {
    Workbench bench(queue);
    const auto tensor = [&](std::uint32_t seed) {
      Values values = random_values(5 * 4, seed), other = random_values(5 * 4, seed_of_second);
      std::copy(other.begin() + 3 * 4, other.end(), values.begin() + 3 * 4);
      return bench.of(DType::f32, {5, 1, 4}, values);
    };
    const Tensor out = bench.poisoned(DType::f32, {5, 1, 4}), log_sum_exp = bench.poisoned(DType::f32, {5});
    run(queue, AttentionForward{.out = out,
                                .log_sum_exp = log_sum_exp,
                                .q = tensor(1),
                                .k = tensor(2),
                                .v = tensor(3),
                                .layout = self_attention(packed_documents(bench.integers({0, 3, 5}), 3))});
    return bench.values(out.rows(0, 3));
  };
  EXPECT_EQ(first_document(8), first_document(9));
}

class RefusedAttention : public ::testing::Test {
 protected:
  CpuQueue queue;
  Workbench bench{queue};
  Tensor x = bench.random(DType::f32, {4, 2, 2}, 1);
  AttentionForward op{.out = bench.poisoned(DType::f32, {4, 2, 2}),
                      .log_sum_exp = bench.poisoned(DType::f32, {8}),
                      .q = x,
                      .k = x,
                      .v = x};
  void accepts(const AttentionLayout& layout) {
    op.layout = layout;
    EXPECT_NO_THROW(run(queue, op));
  }
  void refuses(const AttentionLayout& layout, const std::string& why) {
    op.layout = layout;
    EXPECT_THAT([&] { run(queue, op); }, ::testing::ThrowsMessage<InternalError>(::testing::HasSubstr(why)));
  }
  DocumentLayout between(const Values& begins, const Values& ends, std::int64_t max_length) {
    return {.kind = packed,
            .count = std::ssize(begins),
            .max_length = max_length,
            .pitch = 0,
            .begins = bench.integers(begins),
            .ends = bench.integers(ends)};
  }
};

TEST_F(RefusedAttention, QueryDocumentsThatAreNoPartition) {
  const auto starts = [&](const Values& values) {
    return self_attention(packed_documents(bench.integers(values), 3));
  };
  accepts(starts({0, 1, 4}));
  accepts(starts({0, 0, 1, 1, 4, 4}));
  refuses(starts({0, 4, 4}), "document 0 has 4 queries and 4 keys; at most 3 and 3");
  refuses(starts({0, 2, 3}), "documents to query 3 of 4");
  refuses(starts({1, 2, 4}), "document 0 is queries 1 to 2 behind query 0");
  refuses(self_attention(uniform_documents(3, 1)), "3 documents of 1 tokens are not 4 queries");
  refuses({{.kind = uniform, .count = 2, .max_length = 2, .pitch = 3, .begins = {}, .ends = {}},
           uniform_documents(2, 2)},
          "documents of 2 queries every 3 queries");
}

TEST_F(RefusedAttention, KeyDocumentsThatOverlapOrAreTooShort) {
  op.k = op.v = bench.random(DType::f32, {7, 2, 2}, 2);
  const DocumentLayout query = packed_documents(bench.integers({0, 1, 4}), 3);
  accepts({query, between({0, 3}, {2, 7}, 4)});
  accepts({query, between({1, 4}, {4, 7}, 4)});
  refuses({query, between({0, 2}, {3, 6}, 4)}, "keys 2 to 6 behind key 3");
  refuses({query, between({4, 0}, {6, 4}, 4)}, "keys 0 to 4 behind key 6");
  refuses({query, between({0, 2}, {2, 4}, 4)}, "document 1 has 3 queries and 2 keys");
  refuses({query, between({0, 2}, {2, 7}, 4)}, "document 1 has 3 queries and 5 keys; at most 3 and 4");
  refuses({query, between({0, 4}, {2, 8}, 4)}, "key 8 of 7");
  refuses({query, between({0, 2, 6}, {2, 6, 6}, 4)}, "2 documents of queries and 3 of keys");
  refuses({query, between({0, 3}, {2, 5}, 2)}, "at most 3 queries and 2 keys");
  refuses({query, uniform_documents(2, 3)}, "not of one kind");
  const auto keys = [](std::int64_t length, std::int64_t pitch) -> DocumentLayout {
    return {.kind = uniform, .count = 2, .max_length = length, .pitch = pitch, .begins = {}, .ends = {}};
  };
  accepts({uniform_documents(2, 2), keys(3, 4)});
  refuses({uniform_documents(2, 2), keys(3, 2)}, "documents of 3 tokens every 2 tokens");
  refuses({uniform_documents(2, 2), keys(3, 5)},
          "2 documents of 3 tokens every 5 tokens are more than 7 keys");
}

TEST_F(RefusedAttention, WidthsThatDoNotFit) {
  op.v = bench.random(DType::f32, {4, 2, 3}, 2);
  refuses(self_attention(uniform_documents(1, 4)), "out has the shape [4, 2, 2], not [4, 2, 3]");
  op.out = bench.poisoned(DType::f32, {4, 2, 3});
  accepts(self_attention(uniform_documents(1, 4)));
}

TEST(AttentionCost, CountsVisiblePairs) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor x = bench.random(DType::f32, {8, 2, 4}, 1);
  AttentionForward op{.out = x, .log_sum_exp = bench.poisoned(DType::f32, {16}), .q = x, .k = x, .v = x};
  op.layout = self_attention(uniform_documents(2, 4));
  EXPECT_EQ(op.cost().flops, 4.0 * 4 * 2 * (2 * 10));  // 4 flops · head_dim · heads · pairs
  op.window = 2;
  EXPECT_EQ(op.cost().flops, 4.0 * 4 * 2 * (2 * 7));
  op.layout = self_attention(packed_documents(bench.integers({0, 3, 3, 8}), 5));
  op.window = 0;
  EXPECT_EQ(op.cost().flops, 4.0 * 4 * 2 * (15 + 6));
  op.v = op.out = bench.random(DType::f32, {8, 2, 6}, 2);
  EXPECT_EQ(op.cost().flops, 2.0 * (4 + 6) * 2 * (15 + 6));
  const AttentionBackward backward{.q = op.q, .k = op.k, .v = op.v, .layout = op.layout};
  EXPECT_EQ(backward.cost().flops, 2.0 * (3 * 4 + 2 * 6) * 2 * (15 + 6));
}

TEST(AttentionCost, OfChunksIsThatOfTheirKeysToo) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor q = bench.random(DType::f32, {6, 1, 4}, 1), k = bench.random(DType::f32, {20, 1, 4}, 2);
  AttentionForward op{.out = q, .log_sum_exp = bench.poisoned(DType::f32, {6}), .q = q, .k = k, .v = k};
  op.layout = {uniform_documents(2, 3), {.kind = uniform, .count = 2, .max_length = 8, .pitch = 12}};
  EXPECT_EQ(op.cost().flops, 4.0 * 4 * 2 * (6 + 7 + 8));
  op.window = 7;
  EXPECT_EQ(op.cost().flops, 4.0 * 4 * 2 * (6 + 7 + 7));
  const auto packed_cost = [&](std::int64_t key_tokens, std::int64_t most_keys) {
    op.k = op.v = k.rows(0, key_tokens);
    op.layout = {packed_documents(bench.integers({0, 3, 6}), 3),
                 {.kind = packed,
                  .count = 2,
                  .max_length = most_keys,
                  .pitch = 0,
                  .begins = bench.integers({0, 8}),
                  .ends = bench.integers({8, 16})}};
    return op.cost().flops / (4.0 * 4);
  };
  op.window = 0;
  // At most: both documents among themselves and ten earlier keys that three queries each see.
  EXPECT_EQ(packed_cost(16, 8), 2 * 6 + 10 * 3);
  EXPECT_EQ(packed_cost(20, 8), 6 * 8);  // no query sees more than eight
  op.window = 4;
  EXPECT_EQ(packed_cost(16, 8), 6 * 4);
}

/// The shapes of a measured H200: 8,192 tokens, 32 and 8 heads of 128, slices of one merged buffer.
TEST(AttentionWorkspace, IsBoundedNotFarAboveWhatWasMeasured) {
  MetaTrace trace;
  MetaQueue queue(trace, "compute");
  const Buffer qkv(queue, DType::bf16, {8192, 6144}, MemoryKind::scratch),
      starts(queue, DType::i32, {65}, MemoryKind::batch);
  const auto slice = [&](std::int64_t first, std::int64_t heads) {
    return qkv.tensor().columns(first * 128, heads * 128).view({8192, heads, 128});
  };
  AttentionBackward op{.dq = slice(0, 32),
                       .dk = slice(32, 8),
                       .dv = slice(40, 8),
                       .q = slice(0, 32),
                       .k = slice(32, 8),
                       .v = slice(40, 8),
                       .layout = self_attention(uniform_documents(2, 4096))};
  const auto megabytes = [&](Determinism determinism) {
    return static_cast<double>(workspace_bound(op, determinism)) / 1e6;
  };
  EXPECT_NEAR(megabytes(Determinism::fast), 505, 5);  // 270 measured
  // All score matrices of 2 documents and 32 heads.
  EXPECT_NEAR(megabytes(Determinism::deterministic), 505 + 2147, 5);
  op.layout = self_attention(packed_documents(starts.tensor(), 4096));
  EXPECT_NEAR(megabytes(Determinism::fast), 505, 5);                  // 470 measured
  EXPECT_NEAR(megabytes(Determinism::deterministic), 505 + 2684, 5);  // at most 2,700 of matrices measured
}

TEST(VisiblePairs, AreCountedOneByOne) {
  for (const std::int64_t keys : {0, 1, 5, 12}) {
    for (std::int64_t queries = 0; queries <= keys; ++queries) {
      for (const std::int64_t window : {0, 1, 4, 12, 40}) {
        std::int64_t pairs = 0;
        for (std::int64_t i = keys - queries; i < keys; ++i) {
          for (std::int64_t j = 0; j <= i; ++j) pairs += window == 0 || i - j < window ? 1 : 0;
        }
        EXPECT_EQ(visible_pairs(queries, keys, window), pairs)
            << queries << " of " << keys << ", window " << window;
      }
    }
  }
  EXPECT_EQ(visible_pairs(std::int64_t{1} << 31, std::int64_t{1} << 31, 0), 2305843010287435776);
  EXPECT_THROW(visible_pairs(3, 2, 0), InternalError);
}

}  // namespace
}  // namespace verne::testing
