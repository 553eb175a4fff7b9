#include "verne/ops/embedding.hpp"

#include "fixture.hpp"
#include "verne/ops/run.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {
namespace {

TEST(Embedding, ForwardTakesTheRowsHeldHere) {
  CpuQueue queue(2);
  Workbench bench(queue);
  // Rows 3 to 5 of a larger table.
  const Tensor weight = bench.of(DType::bf16, {3, 2}, {1, 2, 3, 4, 5, 6}),
               tokens = bench.integers({4, 2, 5, 3, 6, 4});
  const Tensor y = bench.poisoned(DType::bf16, {6, 2});
  run(queue, EmbeddingForward{.y = y, .weight = weight, .tokens = tokens, .first_row = 3});
  EXPECT_EQ(bench.values(y), (Values{3, 4, 0, 0, 5, 6, 1, 2, 0, 0, 3, 4}));
  bench.expect_guards_intact();
}

TEST(Embedding, BackwardAddsEveryUse) {
  CpuQueue queue(2);
  Workbench bench(queue);
  const Tensor tokens = bench.integers({4, 2, 5, 3, 6, 4});
  const Tensor dy = bench.of(DType::f32, {6, 2}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  const Tensor dweight = bench.poisoned(DType::f32, {3, 2});
  EmbeddingBackward op{.dweight = dweight, .dy = dy, .tokens = tokens, .first_row = 3};
  run(queue, op);
  EXPECT_EQ(bench.values(dweight), (Values{7, 8, 12, 14, 5, 6}));
  op.accumulate = Accumulate::yes;
  run(queue, op);
  EXPECT_EQ(bench.values(dweight), (Values{14, 16, 24, 28, 10, 12}));
  bench.expect_guards_intact();
}

TEST(Embedding, SumsBfloat16InFloat32) {
  CpuQueue queue;
  Workbench bench(queue);
  const std::int64_t tokens = 1000;  // 256 + 1 + 1 + … would stop at 256 in bfloat16
  Values dy(static_cast<std::size_t>(tokens), 1);
  dy[0] = 256;
  const Tensor dweight = bench.poisoned(DType::f32, {1, 1});
  run(queue, EmbeddingBackward{.dweight = dweight,
                               .dy = bench.of(DType::bf16, {tokens, 1}, dy),
                               .tokens = bench.integers(Values(static_cast<std::size_t>(tokens)))});
  EXPECT_EQ(bench.values(dweight), (Values{256 + 999}));
}

TEST(EmbeddingCheck, NamesWhatIsWrong) {
  CpuQueue queue;
  Workbench bench(queue);
  const Tensor weight = bench.random(DType::f32, {3, 2}, 1), tokens = bench.integers({0});
  EXPECT_THROW(
      run(queue,
          EmbeddingForward{.y = bench.poisoned(DType::f32, {1, 3}), .weight = weight, .tokens = tokens}),
      InternalError);
  EXPECT_THROW(
      run(queue,
          EmbeddingForward{.y = bench.poisoned(DType::bf16, {1, 2}), .weight = weight, .tokens = tokens}),
      InternalError);
  EXPECT_THROW(run(queue, EmbeddingBackward{.dweight = bench.poisoned(DType::bf16, {3, 2}),
                                            .dy = bench.random(DType::bf16, {1, 2}, 1),
                                            .tokens = tokens}),
               InternalError);
}

}  // namespace
}  // namespace verne::testing
