#include "verne/nn/chunk.hpp"

#include <gtest/gtest.h>

#include "verne/base/error.hpp"

namespace verne {
namespace {

ModelConfig model_of(std::int64_t layers, std::int64_t vocabulary) {
  ModelConfig config;
  config.vocab_size = vocabulary;
  config.hidden_size = 4096;
  config.intermediate_size = 14336;
  config.layers = layers;
  config.heads = 32;
  config.kv_heads = 8;
  config.head_dim = 128;
  config.windows.assign(static_cast<std::size_t>(layers), 0);
  return config;
}

std::vector<std::int64_t> layers_of(const std::vector<Chunk>& chunks) {
  std::vector<std::int64_t> counts;
  for (const Chunk& chunk : chunks) counts.push_back(chunk.layers());
  return counts;
}

void expect_whole(const std::vector<Chunk>& chunks, std::int64_t layers) {
  std::int64_t next = 0;
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    EXPECT_EQ(chunks[i].first_layer, next);
    next = chunks[i].last_layer;
    EXPECT_EQ(chunks[i].embedding, i == 0);
    EXPECT_EQ(chunks[i].head, i + 1 == chunks.size());
  }
  EXPECT_EQ(next, layers);
}

TEST(SplitLayers, EveryLayerOnce) {
  for (std::int64_t layers = 1; layers <= 12; ++layers)
    for (int count = 1; count <= layers + 2; ++count) {
      const auto chunks = split_layers(model_of(layers, 32000), count, 2048);
      ASSERT_EQ(std::ssize(chunks), count);
      expect_whole(chunks, layers);
    }
}

TEST(SplitLayers, EvenWhereTheHeadWeighsLittle) {
  EXPECT_EQ(layers_of(split_layers(model_of(32, 1000), 4, 2048)), (std::vector<std::int64_t>{8, 8, 8, 8}));
  EXPECT_EQ(layers_of(split_layers(model_of(32, 1000), 8, 2048)),
            (std::vector<std::int64_t>{4, 4, 4, 4, 4, 4, 4, 4}));
}

/// Llama 3's head costs as much as 2.3 of its layers: its stage has fewer of them. Of equal cuts the first
/// stage, which holds most micro-batches in flight, has the fewest layers.
TEST(SplitLayers, TheHeadTakesTheRoomOfLayers) {
  EXPECT_EQ(layers_of(split_layers(model_of(32, 128256), 4, 4096)), (std::vector<std::int64_t>{8, 9, 9, 6}));
  EXPECT_EQ(layers_of(split_layers(model_of(32, 128256), 8, 4096)),
            (std::vector<std::int64_t>{4, 4, 4, 4, 4, 5, 5, 2}));
}

TEST(SplitLayers, EmbeddingAndHeadMayStandAlone) {
  const auto chunks = split_layers(model_of(2, 128256), 4, 4096);
  EXPECT_EQ(layers_of(chunks), (std::vector<std::int64_t>{0, 1, 1, 0}));
  expect_whole(chunks, 2);
  try {
    split_layers(model_of(2, 128256), 5, 4096);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(),
                 "a model of 2 layers cannot be cut into 5 pipeline chunks (parallel.pipeline · "
                 "parallel.virtual_pipeline); at most 4 hold a layer, the embedding or the head");
  }
}

}  // namespace
}  // namespace verne
