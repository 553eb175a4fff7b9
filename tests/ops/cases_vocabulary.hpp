#pragma once
#include "cases.hpp"
#include "verne/ops/cross_entropy.hpp"
#include "verne/ops/embedding.hpp"

namespace verne::testing {

struct EmbeddingShape {
  std::int64_t tokens, width, vocabulary, first_row, rows;
};

inline std::vector<Output> run_embedding(Queue& queue, DType type, EmbeddingShape shape) {
  Workbench bench(queue);
  const DType statistics = statistics_type(type);
  const Tensor tokens = bench.integers(random_integers(shape.tokens, 1, 0, shape.vocabulary));
  const Tensor weight = bench.random(type, {shape.rows, shape.width}, 2);
  const Tensor y = bench.poisoned(type, {shape.tokens, shape.width});
  bench.run(EmbeddingForward{.y = y, .weight = weight, .tokens = tokens, .first_row = shape.first_row});
  const Tensor dy = bench.random(type, {shape.tokens, shape.width}, 3);
  const Tensor dweight = bench.poisoned(statistics, {shape.rows, shape.width});
  bench.run(EmbeddingBackward{.dweight = dweight, .dy = dy, .tokens = tokens, .first_row = shape.first_row});
  std::vector<Output> outputs{{"y", bench.values(y)}, {"dweight", bench.values(dweight)}};
  bench.run(EmbeddingBackward{.dweight = dweight,
                              .accumulate = Accumulate::yes,
                              .dy = dy,
                              .tokens = tokens,
                              .first_row = shape.first_row});
  outputs.push_back({"dweight, twice", bench.values(dweight)});
  bench.expect_guards_intact();
  return outputs;
}

struct CrossEntropyShape {
  std::int64_t tokens;
  std::int64_t vocabulary;  ///< real columns
  std::vector<std::int64_t>
      blocks;  ///< stored columns of each rank's block; what lies past the vocabulary is padding
};

/// The three steps over all blocks on one queue. dlogits come block after block, padding included.
inline std::vector<Output> run_cross_entropy(Queue& queue, DType type, const CrossEntropyShape& shape) {
  Workbench bench(queue);
  const DType statistics = statistics_type(type);
  const auto blocks = std::ssize(shape.blocks);
  const Tensor targets = bench.integers(random_integers(shape.tokens, 1, 0, shape.vocabulary));
  Values mask = random_integers(shape.tokens, 2, 0, 4);
  for (double& counted : mask) counted = counted != 0;
  const Tensor loss_mask = bench.mask(mask), scale = bench.of(statistics, {1}, {0.125});
  const Tensor stats = bench.poisoned(statistics, {blocks, shape.tokens, 3});
  const Values all =
      random_values(shape.tokens * shape.vocabulary, 3, 3);  // the same logits however they are cut
  struct Block {
    Tensor logits;
    std::int64_t first_column, valid_columns;
  };
  std::vector<Block> parts;
  std::int64_t first = 0;
  for (const std::int64_t columns : shape.blocks) {
    const std::int64_t valid = std::clamp<std::int64_t>(shape.vocabulary - first, 0, columns);
    Values values;
    for (std::int64_t t = 0; t < shape.tokens; ++t) {
      for (std::int64_t c = 0; c < columns; ++c) {
        values.push_back(c < valid ? all[static_cast<std::size_t>(t * shape.vocabulary + first + c)]
                                   : 1000.0);
      }
    }
    parts.push_back({bench.of(type, {shape.tokens, columns}, values), first, valid});
    first += columns;
  }
  for (std::int64_t b = 0; b < blocks; ++b) {
    const Block& part = parts[static_cast<std::size_t>(b)];
    bench.run(CrossEntropyStatistics{.stats = stats.rows(b, 1).view({shape.tokens, 3}),
                                     .logits = part.logits,
                                     .targets = targets,
                                     .first_column = part.first_column,
                                     .valid_columns = part.valid_columns});
  }
  const Tensor log_probability = bench.poisoned(statistics, {shape.tokens}),
               log_sum_exp = bench.poisoned(statistics, {shape.tokens});
  bench.run(
      CrossEntropyCombine{.log_probability = log_probability, .log_sum_exp = log_sum_exp, .stats = stats});
  std::vector<Output> outputs{{"log_probability", bench.values(log_probability)},
                              {"log_sum_exp", bench.values(log_sum_exp)}};
  Values gradient;
  for (std::size_t b = 0; b < parts.size(); ++b) {
    const Block& part = parts[b];
    const Tensor dlogits =
        b == 0 ? bench.poisoned(type, part.logits.shape()) : part.logits;  // later blocks in place
    bench.run(CrossEntropyBackward{.dlogits = dlogits,
                                   .logits = part.logits,
                                   .targets = targets,
                                   .log_sum_exp = log_sum_exp,
                                   .loss_mask = loss_mask,
                                   .scale = scale,
                                   .first_column = part.first_column,
                                   .valid_columns = part.valid_columns});
    const Values values = bench.values(dlogits);
    gradient.insert(gradient.end(), values.begin(), values.end());
  }
  outputs.push_back({"dlogits", gradient});
  bench.expect_guards_intact();
  return outputs;
}

inline std::vector<OpCase> vocabulary_cases() {
  std::vector<OpCase> cases;
  for (const EmbeddingShape s :
       {EmbeddingShape{1, 1, 1, 0, 1}, EmbeddingShape{33, 71, 50, 0, 50}, EmbeddingShape{229, 64, 40, 13, 17},
        EmbeddingShape{3, 4096, 8, 4, 4}, EmbeddingShape{229, 1024, 3, 0, 3}}) {
    cases.push_back(
        {fmt::format("embedding_{}x{}_rows{}at{}of{}", s.tokens, s.width, s.rows, s.first_row, s.vocabulary),
         {DType::f32, DType::bf16},
         [=](Queue& queue, DType type) { return run_embedding(queue, type, s); }});
  }
  for (const CrossEntropyShape& s :
       {CrossEntropyShape{1, 1, {1}}, CrossEntropyShape{3, 71, {71}}, CrossEntropyShape{33, 229, {128, 128}},
        CrossEntropyShape{33, 64, {64, 64}}, CrossEntropyShape{229, 1000, {504, 504}},
        CrossEntropyShape{3, 4099, {4104}}, CrossEntropyShape{7, 32771, {16392, 16392}}}) {
    cases.push_back(
        {fmt::format("cross_entropy_{}x{}_in_{}", s.tokens, s.vocabulary, fmt::join(s.blocks, "_")),
         {DType::f32, DType::bf16},
         [=](Queue& queue, DType type) { return run_cross_entropy(queue, type, s); }});
  }
  return cases;
}

}  // namespace verne::testing
