#include "verne/ops/attention.hpp"

#include "cases_matmul.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {
namespace {

class AttentionTest : public ::testing::TestWithParam<AttentionShape> {
 protected:
  CpuQueue queue{2};
  Workbench bench{queue};
  AttentionShape shape = GetParam();
  std::int64_t heads = shape.query_heads, kv_heads = shape.kv_heads, dim = shape.head_dim;
  double scale = 0.7;
  Values starts{0};
  std::int64_t tokens = 0;
  DocumentLayout documents;
  Tensor q, k, v, out, log_sum_exp;

  void SetUp() override {
    std::int64_t longest = 0;
    for (const std::int64_t length : shape.lengths) {
      tokens += length;
      longest = std::max(longest, length);
      starts.push_back(static_cast<double>(tokens));
    }
    documents = {.kind = shape.kind,
                 .count = std::ssize(shape.lengths),
                 .max_length = longest,
                 .starts = bench.integers(starts)};
    const std::int64_t gap = shape.rows == Rows::strided ? 3 : 0;
    q = bench.random(DType::f64, {tokens, heads, dim}, 1, 1, heads * dim + gap);
    k = bench.random(DType::f64, {tokens, kv_heads, dim}, 2, 1, kv_heads * dim + gap);
    v = bench.random(DType::f64, {tokens, kv_heads, dim}, 3, 1, kv_heads * dim + gap);
    out = bench.poisoned(DType::f64, {tokens, heads, dim}, heads * dim + gap);
    log_sum_exp = bench.poisoned(DType::f64, {tokens * heads});
  }
  void forward() {
    run(queue, AttentionForward{.out = out,
                                .log_sum_exp = log_sum_exp,
                                .q = q,
                                .k = k,
                                .v = v,
                                .documents = documents,
                                .scale = scale,
                                .window = shape.window});
  }
};

TEST_P(AttentionTest, ForwardIsTheFormula) {
  forward();
  const Values qv = bench.values(q), kv = bench.values(k), vv = bench.values(v);
  const auto row = [this](const Values& x, std::int64_t token, std::int64_t head, std::int64_t all_heads) {
    const auto begin = x.begin() + (token * all_heads + head) * dim;
    return Values(begin, begin + dim);
  };
  Values expected;
  std::size_t document = 0;
  for (std::int64_t i = 0; i < tokens; ++i) {
    while (static_cast<double>(i) >= starts[document + 1]) ++document;
    for (std::int64_t head = 0; head < heads; ++head) {
      Values mix(static_cast<std::size_t>(dim));
      double total = 0;
      for (auto j = static_cast<std::int64_t>(starts[document]); j <= i; ++j) {
        if (shape.window > 0 && i - j >= shape.window) continue;
        const std::int64_t kv_head = head / (heads / kv_heads);
        const double p = std::exp(scale * dot(row(qv, i, head, heads), row(kv, j, kv_head, kv_heads)));
        const Values value = row(vv, j, kv_head, kv_heads);
        total += p;
        for (std::size_t c = 0; c < mix.size(); ++c) mix[c] += p * value[c];
      }
      for (const double sum : mix) expected.push_back(sum / total);
    }
  }
  expect_close(bench.values(out), expected, tolerance(DType::f64).formula);
  bench.expect_guards_intact();
}

TEST_P(AttentionTest, BackwardIsTheGradient) {
  forward();
  const Tensor dout = bench.random(DType::f64, {tokens, heads, dim}, 4);
  const Values upstream = bench.values(dout);
  const Tensor dq = bench.poisoned(DType::f64, q.shape(), q.stride()),
               dk = bench.poisoned(DType::f64, k.shape(), k.stride());
  const Tensor dv = bench.poisoned(DType::f64, v.shape(), v.stride());
  run(queue, AttentionBackward{.dq = dq,
                               .dk = dk,
                               .dv = dv,
                               .dout = dout,
                               .q = q,
                               .k = k,
                               .v = v,
                               .out = out,
                               .log_sum_exp = log_sum_exp,
                               .documents = documents,
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

using enum DocumentLayout::Kind;
INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionTest,
    ::testing::Values(
        AttentionShape{{1}, 1, 1, 2, 0, uniform}, AttentionShape{{5, 5}, 4, 2, 3, 0, uniform, Rows::strided},
        AttentionShape{{7, 1, 3, 0, 0}, 2, 1, 4, 0, packed},
        AttentionShape{{9, 4}, 3, 3, 2, 3, packed, Rows::strided}, AttentionShape{{6}, 2, 2, 2, 1, packed},
        // Longer than a block of queries, with and without a window across blocks.
        AttentionShape{{150, 70}, 2, 1, 4, 0, packed}, AttentionShape{{200}, 2, 2, 4, 77, uniform}));

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
    run(queue,
        AttentionForward{
            .out = out,
            .log_sum_exp = log_sum_exp,
            .q = tensor(1),
            .k = tensor(2),
            .v = tensor(3),
            .documents = {.kind = packed, .count = 2, .max_length = 3, .starts = bench.integers({0, 3, 5})}});
    return bench.values(out.rows(0, 3));
  };
  EXPECT_EQ(first_document(8), first_document(9));
}

TEST(Attention, RefusesDocumentsThatAreNoPartition) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor x = bench.random(DType::f32, {4, 2, 2}, 1), log_sum_exp = bench.poisoned(DType::f32, {8});
  AttentionForward op{
      .out = bench.poisoned(DType::f32, {4, 2, 2}), .log_sum_exp = log_sum_exp, .q = x, .k = x, .v = x};
  op.documents = {.kind = packed, .count = 2, .max_length = 3, .starts = bench.integers({0, 1, 4})};
  EXPECT_NO_THROW(run(queue, op));
  op.documents.starts = bench.integers({0, 4, 4});  // longer than max_length
  EXPECT_THROW(run(queue, op), InternalError);
  op.documents.starts = bench.integers({0, 2, 3});  // a token of no document
  EXPECT_THROW(run(queue, op), InternalError);
  op.documents = {.kind = uniform, .count = 3, .max_length = 1, .starts = bench.integers({0, 1, 2, 3})};
  EXPECT_THROW(run(queue, op), InternalError);
}

TEST(AttentionCost, CountsVisiblePairs) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor x = bench.random(DType::f32, {8, 2, 4}, 1);
  AttentionForward op{.out = x, .log_sum_exp = bench.poisoned(DType::f32, {16}), .q = x, .k = x, .v = x};
  op.documents = {.kind = uniform, .count = 2, .max_length = 4, .starts = bench.integers({0, 4, 8})};
  EXPECT_EQ(op.cost().flops, 4.0 * 4 * 2 * (2 * 10));  // 4 flops · head_dim · heads · pairs
  op.window = 2;
  EXPECT_EQ(op.cost().flops, 4.0 * 4 * 2 * (2 * 7));
}

}  // namespace
}  // namespace verne::testing
