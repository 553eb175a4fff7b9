#include "verne/nn/parameter_store.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "verne/base/error.hpp"
#include "verne/tensor/cpu_queue.hpp"
#include "verne/tensor/meta_queue.hpp"

namespace verne {
namespace {

using ::testing::ElementsAre;

using Copies = Placement::Copies;
using Share = ParameterStore::Share;
using Which = ParameterStore::Which;

Parameter parameter(const std::string& name, Shape shape, Copies copies = Copies::none) {
  Parameter p;
  p.name = name;
  p.shape = shape;
  p.slices = {{.name = name, .shape = shape, .runs = row_block(0, 1, shape.count(), 0)}};
  p.placement.copies = copies;
  return p;
}

struct Model {
  Parameter a = parameter("a", {10, 10});                           // 100 → 128 elements
  Parameter b = parameter("b", {7}, Copies::partial);               // 7 → 64
  Parameter c = parameter("c", {64}), d = parameter("d", {5, 30});  // 64, 150 → 192
  Parameter e = parameter("e", {65}, Copies::partial);              // 65 → 128
  std::vector<Parameter*> all = {&a, &b, &c, &d, &e};
  std::vector<std::vector<Parameter*>> one_chunk = {all}, two_chunks = {{&a, &b, &c}, {&d, &e}};
};

TEST(ParameterStore, PlacesInReverseWithCopiesInBucketsOfTheirOwn) {
  CpuQueue queue;
  Model m;
  const ParameterStore store(queue, m.one_chunk, DType::f32, {}, 200, Purpose::training);
  ASSERT_EQ(store.buckets().size(), 3u);
  // d and c fill the first bucket beyond 200 elements; a opens the second; e and b are summed over tensor
  // ranks.
  EXPECT_THAT(store.buckets()[0].parameters, ElementsAre(3, 2));
  EXPECT_THAT(store.buckets()[1].parameters, ElementsAre(0));
  EXPECT_THAT(store.buckets()[2].parameters, ElementsAre(4, 1));
  EXPECT_EQ(store.buckets()[0].copies, Copies::none);
  EXPECT_EQ(store.buckets()[1].copies, Copies::none);
  EXPECT_EQ(store.buckets()[2].copies, Copies::partial);
  EXPECT_EQ(store.offset(m.d), 0);
  EXPECT_EQ(store.offset(m.c), 192);
  EXPECT_EQ(store.offset(m.a), 256);
  EXPECT_EQ(store.offset(m.e), 384);
  EXPECT_EQ(store.offset(m.b), 512);
  ASSERT_EQ(store.pools().size(), 1u);
  EXPECT_EQ(store.pools()[0].elements, 576);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(m.all[static_cast<std::size_t>(i)]->index, i);
}

/// A bucket leaves when its chunk is through: none holds parameters of two.
TEST(ParameterStore, BucketsCloseAtChunks) {
  CpuQueue queue;
  Model m;
  const ParameterStore store(queue, m.two_chunks, DType::f32, {}, 1'000'000, Purpose::training);
  ASSERT_EQ(store.buckets().size(), 4u);
  EXPECT_THAT(store.buckets()[0].parameters, ElementsAre(2, 0));
  EXPECT_THAT(store.buckets()[1].parameters, ElementsAre(1));
  EXPECT_THAT(store.buckets()[2].parameters, ElementsAre(3));
  EXPECT_THAT(store.buckets()[3].parameters, ElementsAre(4));
}

TEST(ParameterStore, BucketsAreWholeBlocksForEveryRank) {
  for (int ranks : {1, 2, 3, 8}) {
    for (std::int64_t bucket_elements : {1, 200, 1'000'000}) {
      MetaTrace trace;
      MetaQueue queue(trace, "compute");
      Model m;
      const ParameterStore store(queue, m.one_chunk, DType::bf16, {.rank = ranks - 1, .ranks = ranks},
                                 bucket_elements, Purpose::training);
      std::int64_t at = 0;
      for (std::size_t i = 0; i < store.buckets().size(); ++i) {
        const Bucket& bucket = store.buckets()[i];
        EXPECT_EQ(bucket.begin, at);
        EXPECT_EQ(bucket.size % (64 * ranks), 0);
        EXPECT_EQ(store.owned(bucket).count, bucket.size / ranks);
        EXPECT_EQ(store.owned(bucket).end(), bucket.begin + bucket.size);
        std::int64_t used = 0, inside = bucket.begin;
        for (int index : bucket.parameters) {
          const Parameter& p = *m.all[static_cast<std::size_t>(index)];
          EXPECT_EQ(store.bucket_of(p), i);
          EXPECT_EQ(store.offset(p), inside);
          EXPECT_EQ(store.offset(p) % 64, 0);
          EXPECT_LT(used, bucket_elements);  // it was still open
          used += (p.shape.count() + 63) / 64 * 64;
          inside = bucket.begin + used;
          EXPECT_EQ(p.placement.copies, bucket.copies);
        }
        EXPECT_EQ(bucket.size, (used + 64 * ranks - 1) / (64 * ranks) * (64 * ranks));
        at += bucket.size;
      }
      EXPECT_EQ(store.pools()[0].elements, at);
      const auto live = [&](MemoryKind kind) { return trace.memory().live[static_cast<std::size_t>(kind)]; };
      EXPECT_EQ(live(MemoryKind::weights), 2 * at);
      EXPECT_EQ(live(MemoryKind::gradients), 4 * at);
    }
  }
}

/// Frozen parameters lie in a pool of their own, which has no gradients.
TEST(ParameterStore, FrozenParametersHaveAPoolWithoutGradients) {
  MetaTrace trace;
  MetaQueue queue(trace, "compute");
  Model m;
  m.c.trainable = m.e.trainable = false;
  const ParameterStore store(queue, m.one_chunk, DType::bf16, {}, 1'000'000, Purpose::training);
  ASSERT_EQ(store.pools().size(), 2u);
  const auto& trained = store.pools()[store.pools()[0].trainable ? 0 : 1];
  const auto& frozen = store.pools()[store.pools()[0].trainable ? 1 : 0];
  EXPECT_TRUE(trained.trainable);
  EXPECT_FALSE(frozen.trainable);
  EXPECT_EQ(trained.elements, 192 + 128 + 64);
  EXPECT_EQ(frozen.elements, 64 + 128);
  EXPECT_EQ(frozen.gradients.bytes(), 0);
  EXPECT_EQ(trace.memory().live[static_cast<std::size_t>(MemoryKind::gradients)], 4 * trained.elements);
  EXPECT_THROW(store.gradient(m.c), InternalError);
  for (const Bucket& bucket : store.buckets())
    for (const int index : bucket.parameters)
      EXPECT_EQ(store.parameter(index).trainable, store.pool(bucket).trainable);
  const auto names = [&](Which which) {
    std::vector<std::string> all;
    for (const TensorPart& part : store.weight_parts(DType::bf16, Share::held, which))
      all.push_back(part.name);
    return all;
  };
  EXPECT_THAT(names(Which::trained), ElementsAre("a", "b", "d"));
  EXPECT_THAT(names(Which::frozen), ElementsAre("c", "e"));
  EXPECT_THAT(names(Which::all), ElementsAre("a", "b", "c", "d", "e"));
  std::vector<std::string> gradients;
  for (const TensorPart& part : store.gradient_parts(Share::held)) gradients.push_back(part.name);
  EXPECT_THAT(gradients, ElementsAre("a", "b", "d"));
}

/// Over the ranks of a reduce group the owned parts cover each element once; of copies the first alone
/// counts.
TEST(ParameterStore, SharesOfTheRanksCoverEachElementOnce) {
  const auto covered = [](Share share, const FirstCopy& first_copy) {
    std::map<std::string, std::int64_t> elements;
    for (int rank = 0; rank < 3; ++rank) {
      MetaTrace trace;
      MetaQueue queue(trace, "compute");
      Model m;
      m.d.placement = {.copies = Copies::kv_heads, .first_copied_row = 2};
      m.a.placement = {.copies = Copies::stages};
      const ParameterStore store(queue, m.one_chunk, DType::f32,
                                 {.rank = rank, .ranks = 3, .first_copy = first_copy}, 100,
                                 Purpose::training);
      for (const TensorPart& part : store.weight_parts(DType::f32, share))
        for (const ElementRuns& run : part.runs) elements[part.name] += run.count * run.length;
    }
    return elements;
  };
  using Elements = std::map<std::string, std::int64_t>;
  const Elements all = {{"a", 100}, {"b", 7}, {"c", 64}, {"d", 150}, {"e", 65}};
  EXPECT_EQ(covered(Share::owned, {}), all);
  EXPECT_EQ(covered(Share::counted, {}), all);
  EXPECT_EQ(covered(Share::owned, {.tensor = false, .kv_heads = false, .stages = false}), all);
  EXPECT_EQ(covered(Share::counted, {.tensor = false}), (Elements{{"a", 100}, {"c", 64}, {"d", 150}}));
  EXPECT_EQ(covered(Share::counted, {.kv_heads = false}),
            (Elements{{"a", 100}, {"b", 7}, {"c", 64}, {"d", 60}, {"e", 65}}));
  EXPECT_EQ(covered(Share::counted, {.stages = false}),
            (Elements{{"b", 7}, {"c", 64}, {"d", 150}, {"e", 65}}));
}

TEST(ParameterStore, InferenceHasNoGradients) {
  MetaTrace trace;
  MetaQueue queue(trace, "compute");
  Model m;
  const ParameterStore store(queue, m.one_chunk, DType::bf16, {}, 200, Purpose::inference);
  EXPECT_EQ(trace.memory().live_total(), 2 * store.pools()[0].elements);
}

TEST(ParameterStore, WeightsStandWhereTheirPartsSay) {
  CpuQueue queue;
  Model m;
  // Two slices in one buffer, the second a block of columns.
  m.d.slices = {
      {.name = "d.rows", .shape = {2, 30}, .runs = row_block(0, 2, 30, 0)},
      {.name = "d.columns",
       .shape = {3, 40},
       .runs = {
           {.global = 10, .local = 60, .length = 30, .count = 3, .global_stride = 40, .local_stride = 30}}}};
  const ParameterStore store(queue, m.one_chunk, DType::f32, {.ranks = 2}, 200, Purpose::training);
  const Tensor flat = store.pools()[0].weights.tensor(), gradients = store.pools()[0].gradients.tensor();
  for (std::int64_t i = 0; i < flat.count(); ++i) EXPECT_EQ(flat.data<float>()[i], 0) << "not zero at first";
  for (const Parameter* p : m.all)
    for (std::int64_t i = 0; i < p->shape.count(); ++i)
      store.weight(*p).data<float>()[i] = static_cast<float>(1000 * p->index + i);
  std::map<std::string, std::map<std::int64_t, float>> logical;
  for (const TensorPart& part : store.weight_parts(DType::bf16, Share::held)) {
    EXPECT_EQ(part.dtype, DType::bf16);
    for (const ElementRuns& r : part.runs)
      for (std::int64_t i = 0; i < r.count; ++i)
        for (std::int64_t e = 0; e < r.length; ++e)
          logical[part.name][r.global + i * r.global_stride + e] =
              part.local.data<float>()[r.local + i * r.local_stride + e];
  }
  EXPECT_EQ(logical.size(), 6u);
  const auto expect_values = [&](const char* name, std::int64_t count, float first) {
    ASSERT_EQ(std::ssize(logical[name]), count);
    for (std::int64_t i = 0; i < count; ++i) EXPECT_EQ(logical[name][i], first + static_cast<float>(i));
  };
  expect_values("a", 100, 0);
  expect_values("b", 7, 1000);
  expect_values("c", 64, 2000);
  expect_values("e", 65, 4000);
  expect_values("d.rows", 60, 3000);
  for (std::int64_t row = 0; row < 3; ++row)
    for (std::int64_t column = 0; column < 30; ++column)
      EXPECT_EQ(logical["d.columns"][row * 40 + 10 + column], 3060 + static_cast<float>(row * 30 + column));
  // A bucket's weights and gradients are views of the flat buffers.
  const Bucket& bucket = store.buckets()[1];
  const PoolRange whole = ParameterStore::whole(bucket);
  EXPECT_EQ(store.weights(bucket, whole).raw(), flat.raw() + 4 * bucket.begin);
  EXPECT_EQ(store.gradients(bucket, whole).raw(), gradients.raw() + 4 * bucket.begin);
  EXPECT_EQ(store.weights(bucket, whole).count(), bucket.size);
  EXPECT_EQ(store.gradient(m.c).raw(), gradients.raw() + 4 * store.offset(m.c));
}

}  // namespace
}  // namespace verne
