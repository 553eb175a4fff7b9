#include "verne/ops/cross_entropy.hpp"

#include <numeric>

#include "cases_vocabulary.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {
namespace {

/// The same logits cut in one block, in two, with padding columns, and with a block that has none but
/// padding.
TEST(CrossEntropy, DoesNotDependOnTheBlocks) {
  CpuQueue queue;
  const std::int64_t tokens = 6, vocabulary = 10;
  for (const DType type : {DType::f64, DType::f32}) {
    const std::vector<Output> whole = run_cross_entropy(queue, type, {tokens, vocabulary, {10}});
    for (const std::vector<std::int64_t>& blocks :
         {std::vector<std::int64_t>{5, 5}, {3, 7}, {13}, {8, 8}, {10, 4}, {4, 4, 4}}) {
      const std::vector<Output> cut = run_cross_entropy(queue, type, {tokens, vocabulary, blocks});
      expect_close(cut[0].values, whole[0].values, tolerance(type).formula, "log_probability");
      expect_close(cut[1].values, whole[1].values, tolerance(type).formula, "log_sum_exp");
      Values stitched(static_cast<std::size_t>(tokens * vocabulary));
      std::int64_t first = 0, offset = 0;
      for (const std::int64_t columns : blocks) {
        for (std::int64_t t = 0; t < tokens; ++t) {
          for (std::int64_t c = 0; c < columns; ++c) {
            const double value = cut[2].values[static_cast<std::size_t>(offset + t * columns + c)];
            if (first + c < vocabulary) {
              stitched[static_cast<std::size_t>(t * vocabulary + first + c)] = value;
            } else {
              EXPECT_EQ(value, 0) << "a padding column has a gradient";
            }
          }
        }
        first += columns;
        offset += tokens * columns;
      }
      expect_close(stitched, whole[2].values, tolerance(type).formula, "dlogits");
    }
  }
}

struct Loss {
  CpuQueue queue{1};
  Workbench bench{queue};
  Tensor logits, targets, mask, scale, stats, log_probability, log_sum_exp;

  Loss(DType type, const Values& logit_values, const Values& target_values, const Values& mask_values,
       double scale_value) {
    const auto tokens = std::ssize(target_values);
    logits = bench.of(type, {tokens, std::ssize(logit_values) / tokens}, logit_values);
    targets = bench.integers(target_values);
    mask = bench.mask(mask_values);
    scale = bench.of(type, {1}, {scale_value});
    stats = bench.poisoned(type, {1, tokens, 3});
    log_probability = bench.poisoned(type, {tokens});
    log_sum_exp = bench.poisoned(type, {tokens});
  }
  Values log_probabilities() {
    run(queue, CrossEntropyStatistics{.stats = stats.view({targets.size(0), 3}),
                                      .logits = logits,
                                      .targets = targets,
                                      .valid_columns = logits.size(1)});
    run(queue,
        CrossEntropyCombine{.log_probability = log_probability, .log_sum_exp = log_sum_exp, .stats = stats});
    return bench.values(log_probability);
  }
};

TEST(CrossEntropy, BackwardIsTheGradientOfTheMaskedMean) {
  const Values mask{1, 0, 1, 1};
  Loss loss(DType::f64, random_values(4 * 7, 1, 2), {3, 1, 0, 6}, mask, 1.0 / 3);
  const auto mean = [&] {
    const Values log_probability = loss.log_probabilities();
    return -dot(log_probability, mask) / 3;
  };
  mean();
  const Tensor dlogits = loss.bench.poisoned(DType::f64, {4, 7});
  run(loss.queue, CrossEntropyBackward{.dlogits = dlogits,
                                       .logits = loss.logits,
                                       .targets = loss.targets,
                                       .log_sum_exp = loss.log_sum_exp,
                                       .loss_mask = loss.mask,
                                       .scale = loss.scale,
                                       .valid_columns = 7});
  expect_gradient(loss.logits, loss.bench.values(dlogits), mean, "dlogits");
}

TEST(CrossEntropy, HoldsForExtremeLogits) {
  // Largest logit far above 88, where exp overflows in float32; far below; all equal; −inf beside finite
  // ones.
  Loss loss(DType::f32, {1000, 999, -1000, -1000, -1001, -1002, 5, 5, 5, -INFINITY, 0, 0}, {1, 0, 2, 1},
            {1, 1, 1, 1}, 1);
  const Values expected{-1 - std::log1p(std::exp(-1.0)), -std::log(1 + std::exp(-1.0) + std::exp(-2.0)),
                        -std::log(3.0), -std::log(2.0)};
  expect_close(loss.log_probabilities(), expected, 2e-4);  // logits of 1000: float32 has 6e-5 there
  Loss missing(DType::f32, {0, 0, 0}, {-100}, {0}, 1);
  EXPECT_EQ(missing.log_probabilities()[0], -INFINITY);
  EXPECT_NEAR(missing.bench.values(missing.log_sum_exp)[0], std::log(3.0), 1e-7);
}

TEST(CrossEntropy, CarriesNanOver) {
  Loss loss(DType::f32, {0, std::nan(""), 1, 0, 1, 2}, {0, 0}, {1, 1}, 1);
  const Values result = loss.log_probabilities();
  EXPECT_TRUE(std::isnan(result[0]));
  EXPECT_FALSE(std::isnan(result[1]));
}

/// With log_sum_exp 0 and scale 1 the gradient beside the target is e^x itself.
TEST(CrossEntropy, ExponentialIsWithinTwoUnitsInTheLastPlace) {
  Values logits{0};  // the target's
  for (double x = -87; x < 88.7; x += 0.0037) logits.push_back(static_cast<float>(x));
  Loss loss(DType::f32, logits, {0}, {1}, 1);
  const Tensor dlogits = loss.bench.poisoned(DType::f32, loss.logits.shape());
  run(loss.queue, CrossEntropyBackward{.dlogits = dlogits,
                                       .logits = loss.logits,
                                       .targets = loss.targets,
                                       .log_sum_exp = loss.bench.of(DType::f32, {1}, {0}),
                                       .loss_mask = loss.mask,
                                       .scale = loss.scale,
                                       .valid_columns = std::ssize(logits)});
  const Values actual = loss.bench.values(dlogits);
  for (std::size_t i = 1; i < logits.size(); ++i) {
    ASSERT_NEAR(actual[i] / std::exp(logits[i]), 1, 2.4e-7) << "e^" << logits[i];
  }
}

/// 300,000 columns: a sum in plain float32 would lose digits.
TEST(CrossEntropy, KeepsItsDigitsOverALargeVocabulary) {
  const std::int64_t columns = 300000;
  const Values logits = random_values(columns, 3);
  Loss loss(DType::f32, logits, {12345}, {1}, 1);
  double sum = 0;
  for (const double x : logits) sum += std::exp(x);
  EXPECT_NEAR(loss.log_probabilities()[0] / (logits[12345] - std::log(sum)), 1, 3e-7);
}

TEST(CrossEntropyCheck, NamesWhatIsWrong) {
  Loss loss(DType::f32, {0, 0, 0}, {1}, {1}, 1);
  const CrossEntropyStatistics op{
      .stats = loss.stats.view({1, 3}), .logits = loss.logits, .targets = loss.targets, .valid_columns = 4};
  EXPECT_THROW(run(loss.queue, op), InternalError);
  EXPECT_THROW(run(loss.queue,
                   CrossEntropyCombine{.log_probability = loss.log_probability, .log_sum_exp = loss.scale}),
               InternalError);
}

}  // namespace
}  // namespace verne::testing
