#include "verne/nn/parameter.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "verne/nn/embedding.hpp"

namespace verne {
namespace {

using Pairs = std::set<std::pair<std::int64_t, std::int64_t>>;  // global, local

Pairs pairs(const std::vector<ElementRuns>& runs) {
  Pairs all;
  for (const ElementRuns& r : runs) {
    EXPECT_GT(r.length, 0);
    EXPECT_GE(r.count, 1);
    for (std::int64_t i = 0; i < r.count; ++i)
      for (std::int64_t e = 0; e < r.length; ++e)
        EXPECT_TRUE(all.emplace(r.global + i * r.global_stride + e, r.local + i * r.local_stride + e).second)
            << "an element twice";
  }
  return all;
}

TEST(Parameter, RowBlock) {
  for (std::int64_t count : {0, 1, 3}) {
    Pairs expected;
    for (std::int64_t row = 0; row < count; ++row)
      for (std::int64_t column = 0; column < 5; ++column)
        expected.emplace((2 + row) * 5 + column, (7 + row) * 5 + column);
    EXPECT_EQ(pairs(row_block(2, count, 5, 7)), expected);
  }
}

TEST(Parameter, ColumnBlock) {
  for (std::int64_t rows : {1, 4}) {
    for (std::int64_t first = 0; first < 6; ++first) {
      for (std::int64_t count = 1; first + count <= 6; ++count) {
        Pairs expected;
        for (std::int64_t row = 0; row < rows; ++row)
          for (std::int64_t column = 0; column < count; ++column)
            expected.emplace(row * 6 + first + column, row * count + column);
        EXPECT_EQ(pairs(column_block(rows, 6, first, count)), expected)
            << rows << " " << first << " " << count;
      }
    }
  }
  EXPECT_EQ(column_block(4, 6, 0, 6).size(), 1u);
  EXPECT_EQ(column_block(4, 6, 0, 6)[0].count, 1);  // whole rows are one run
}

/// Against the definition, element by element.
void expect_clipped(const std::vector<ElementRuns>& runs, std::int64_t begin, std::int64_t end,
                    std::int64_t shift) {
  Pairs expected;
  for (const auto& [global, local] : pairs(runs))
    if (local >= begin && local < end) expected.emplace(global, local + shift);
  EXPECT_EQ(pairs(clip_runs(runs, begin, end, shift)), expected) << begin << " " << end << " " << shift;
}

TEST(Parameter, ClipRunsAtEveryCut) {
  const std::vector<ElementRuns> runs = {
      {.global = 100, .local = 3, .length = 4, .count = 3, .global_stride = 10, .local_stride = 6},
      {.global = 500, .local = 22, .length = 5}};
  for (std::int64_t begin = -5; begin < 32; ++begin)
    for (std::int64_t end = begin; end < 34; ++end) expect_clipped(runs, begin, end, 1000);
}

TEST(Parameter, ClipRunsOfRandomRuns) {
  std::mt19937_64 random(7);
  const auto draw = [&](std::int64_t least, std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(least, most)(random);
  };
  for (int trial = 0; trial < 3000; ++trial) {
    std::vector<ElementRuns> runs;
    std::int64_t local = draw(0, 5), global = draw(0, 5);
    for (std::int64_t i = draw(1, 3); i-- > 0;) {
      ElementRuns r{.global = global, .local = local, .length = draw(1, 6), .count = draw(1, 5)};
      if (r.count > 1) {
        r.global_stride = r.length + draw(0, 4);
        r.local_stride = r.length + draw(0, 4);
      }
      local += (r.count - 1) * r.local_stride + r.length + draw(0, 3);
      global += (r.count - 1) * r.global_stride + r.length + draw(0, 3);
      runs.push_back(r);
    }
    const std::int64_t begin = draw(-4, local + 4);
    expect_clipped(runs, begin, draw(begin, local + 8), draw(-50, 50));
  }
}

TEST(Parameter, VocabularyBlocksCoverEveryIdOnce) {
  for (std::int64_t vocabulary : {1, 16, 127, 128, 131, 1000}) {
    for (int ranks : {1, 2, 3, 4, 8}) {
      std::int64_t next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const VocabularyBlock block = vocabulary_block(vocabulary, rank, ranks);
        EXPECT_EQ(block.rows, vocabulary_block(vocabulary, 0, ranks).rows);
        EXPECT_EQ(block.rows % 16, 0);
        EXPECT_EQ(block.first, rank * block.rows);
        EXPECT_LE(block.valid, block.rows);
        if (block.valid > 0) {
          EXPECT_EQ(block.first, next);
        }
        next += block.valid;
      }
      EXPECT_EQ(next, vocabulary) << ranks;
    }
  }
  const VocabularyBlock last = vocabulary_block(131, 3, 4);  // three ranks of 48 rows hold all
  EXPECT_EQ(last.rows, 48);
  EXPECT_EQ(last.valid, 0);
  EXPECT_EQ(vocabulary_block(131, 2, 4).valid, 35);
}

}  // namespace
}  // namespace verne
