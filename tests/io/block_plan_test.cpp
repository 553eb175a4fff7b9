#include "verne/io/block_plan.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "many_ranks.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::received_by;

constexpr std::int64_t kFloats = kBlockBytes / 4;  // elements of a float32 block

/// Parts whose memory nobody touches.
TensorPart part_of(const TensorInfo& tensor, std::vector<ElementRuns> runs) {
  const Tensor local(reinterpret_cast<std::byte*>(64), tensor.dtype, {std::int64_t{1} << 40});
  return {tensor.name, tensor.dtype, tensor.shape, local, std::move(runs)};
}

struct Given {
  std::size_t tensor;
  std::vector<ElementRuns> runs;
};
PartBlocks blocks_of(const BlockIndex& index, const std::vector<Given>& given) {
  std::vector<TensorPart> parts;
  std::vector<std::size_t> tensor_of;
  for (const Given& one : given) {
    parts.push_back(part_of(index.tensors()[one.tensor], one.runs));
    tensor_of.push_back(one.tensor);
  }
  return {index, parts, tensor_of};
}

TEST(BlockIndex, CountsBlocksThrough) {
  const BlockIndex index({{"a", DType::f32, {3 * kFloats / 2}},
                          {"none", DType::f32, {0, 7}},
                          {"b", DType::bf16, {2 * kFloats + 1}},
                          {"c", DType::u8, {5}}});
  EXPECT_EQ(index.blocks(), 5);
  EXPECT_EQ(index.number(2, 1), 3);
  const auto place = [&](std::int64_t number) {
    const BlockIndex::Place at = index.place(number);
    return std::vector<std::int64_t>{static_cast<std::int64_t>(at.tensor), at.block, at.begin, at.end};
  };
  EXPECT_THAT(place(0), ElementsAre(0, 0, 0, kFloats));
  EXPECT_THAT(place(1), ElementsAre(0, 1, kFloats, 3 * kFloats / 2));
  EXPECT_THAT(place(2), ElementsAre(2, 0, 0, 2 * kFloats));
  EXPECT_THAT(place(3), ElementsAre(2, 1, 2 * kFloats, 2 * kFloats + 1));
  EXPECT_THAT(place(4), ElementsAre(3, 0, 0, 5));
  EXPECT_THROW(index.place(5), InternalError);
}

TEST(PartBlocks, SharesAndSegmentsOfStridedRuns) {
  // Columns [10, 14) of 2,048 columns: 2,048 rows to a block.
  const BlockIndex index({{"x", DType::f32, {16}}, {"m", DType::f32, {3000, 2048}}});
  const PartBlocks blocks = blocks_of(index, {{1, {{10, 5, 4, 3000, 2048, 4}}}, {0, {}}});
  ASSERT_EQ(blocks.parts().size(), 1u);
  ASSERT_EQ(blocks.shares().size(), 2u);
  EXPECT_EQ(blocks.shares()[0].block, 1);
  EXPECT_EQ(blocks.shares()[0].elements, 4 * 2048);
  EXPECT_EQ(blocks.shares()[1].elements, 4 * 952);
  // Σ over rows r and columns c of 2048·r + c
  EXPECT_EQ(blocks.shares()[1].positions,
            std::uint64_t{4 * 2048} * (952 * 951 / 2) + 952 * (10 + 11 + 12 + 13));
  const std::vector<Segment> segments = blocks.segments(2);
  ASSERT_EQ(segments.size(), 952u);
  EXPECT_EQ(segments[0].global, 2048 * 2048 + 10);
  EXPECT_EQ(segments[0].local, 5 + 4 * 2048);
  EXPECT_EQ(segments[951].local, 5 + 4 * 2999);
  EXPECT_TRUE(blocks.segments(0).empty());
}

TEST(PartBlocks, PartsOfATensorAreOneInOrder) {
  const BlockIndex index({{"x", DType::f32, {100}}});
  const PartBlocks blocks = blocks_of(index, {{0, {{50, 0, 10}, {20, 10, 5}}}, {0, {{30, 7, 20}}}});
  std::vector<std::int64_t> found;
  for (const Segment& segment : blocks.segments(0))
    found.insert(found.end(), {segment.global, segment.local, segment.length});
  EXPECT_THAT(found, ElementsAre(20, 10, 5, 30, 7, 20, 50, 0, 10));
  ASSERT_EQ(blocks.shares().size(), 1u);
  EXPECT_EQ(blocks.shares()[0].elements, 35);
}

/// What the homes find where rank r gives given[r] of one tensor: blocks to read back by rank, or the error.
std::string check(const TensorInfo& tensor, const std::vector<std::vector<ElementRuns>>& given) {
  const BlockIndex index({tensor});
  const int ranks = static_cast<int>(given.size());
  std::vector<ByRank<BlockShare>> sent;
  for (const auto& runs : given)
    sent.push_back(shares_by_home(blocks_of(index, {{0, runs}}).shares(), ranks));
  std::string found;
  try {
    for (int r = 0; r < ranks; ++r)
      for (const std::int64_t block : divided_blocks(index, r, ranks, received_by(r, sent)))
        found += fmt::format("{}@{} ", block, r);
  } catch (const InternalError& error) {
    return error.what();
  }
  return found;
}

TEST(BlockPlan, HomesReadBackWhatSeveralRanksWrite) {
  const TensorInfo tensor{"t", DType::f32, {4 * kFloats + 10}};
  // Block 0 of one rank, block 1 cut, block 2 of one rank in two runs, block 3 cut, the last one of one rank.
  EXPECT_EQ(check(tensor, {{{0, 0, kFloats + 5}, {4 * kFloats, 0, 10}},
                           {{kFloats + 5, 0, 3 * kFloats / 2}, {5 * kFloats / 2 + 5, 0, kFloats / 2}},
                           {{3 * kFloats + 5, 0, kFloats - 5}}}),
            "3@0 1@1 ");
}

TEST(BlockPlan, MissingDoubledAndMisplacedElementsAreFound) {
  const TensorInfo tensor{"t", DType::f32, {2 * kFloats}};
  EXPECT_EQ(check(tensor, {{{0, 0, kFloats}}, {{kFloats, 0, kFloats}}}), "");
  EXPECT_THAT(check(tensor, {{{0, 0, kFloats}}, {{kFloats, 0, kFloats - 1}}}),
              HasSubstr("t: of elements 4194304 to 8388608 the ranks give 4194303"));
  EXPECT_THAT(check(tensor, {{{0, 0, kFloats}}, {{kFloats, 0, kFloats}, {7, 0, 1}}}),
              HasSubstr("t: of elements 0 to 4194304 the ranks give 4194305"));
  EXPECT_THAT(check(tensor, {{{0, 0, kFloats}}, {}}), HasSubstr("the ranks give 0"));
  // As many as there should be, one twice and one not at all.
  EXPECT_THAT(check(tensor, {{{0, 0, 100}, {200, 0, kFloats - 200}}, {{99, 0, 100}, {kFloats, 0, kFloats}}}),
              HasSubstr("t: of elements 0 to 4194304 the ranks give some twice and others not at all"));
}

/// Who reads each block.
std::map<std::int64_t, int> readers_of(const std::vector<ReadPlan>& plans) {
  std::map<std::int64_t, int> readers;
  for (std::size_t r = 0; r < plans.size(); ++r)
    for (const ReadPlan::Read& read : plans[r].reads)
      EXPECT_TRUE(readers.emplace(read.block, static_cast<int>(r)).second) << read.block << " is read twice";
  return readers;
}

/// Eighths [begin, end) of a float32 block of the first tensor.
Given eighths(std::int64_t block, std::int64_t begin, std::int64_t end) {
  return {0, {{block * kFloats + begin * kFloats / 8, 0, (end - begin) * kFloats / 8}}};
}

TEST(BlockPlan, WhoWantsMostReads) {
  // Each rank wants most of a block, all of one, and a quarter of one that is nobody's; the last is not
  // wanted.
  const BlockIndex index({{"t", DType::f32, {13 * kFloats}}});
  std::vector<PartBlocks> wanted;
  for (std::int64_t r = 0; r < 4; ++r) {
    std::vector<Given> given{eighths((r + 1) % 4, 0, 5), eighths(r, 5, 8), eighths(7 - r, 0, 8)};
    for (std::int64_t block = 8; block < 12; ++block) given.push_back(eighths(block, 2 * r, 2 * r + 2));
    wanted.push_back(blocks_of(index, given));
  }
  const std::map<std::int64_t, int> readers = readers_of(testing::plan_reads(wanted));
  ASSERT_EQ(readers.size(), 12u);
  for (int r = 0; r < 4; ++r) {
    EXPECT_EQ(readers.at((r + 1) % 4), r);
    EXPECT_EQ(readers.at(7 - r), r);
    EXPECT_EQ(readers.at(8 + r), r) << "its home";
  }
}

TEST(BlockPlan, TwoWhoWantHalfTakeTurns) {
  const BlockIndex index({{"t", DType::f32, {16 * kFloats}}});
  std::vector<PartBlocks> wanted;
  for (std::int64_t r = 0; r < 2; ++r) {
    std::vector<Given> given;
    for (std::int64_t block = 0; block < 16; ++block) given.push_back(eighths(block, 4 * r, 4 * r + 4));
    wanted.push_back(blocks_of(index, given));
  }
  const std::vector<ReadPlan> plans = testing::plan_reads(wanted);
  EXPECT_EQ(plans[0].reads.size(), 8u);
  EXPECT_EQ(plans[1].reads.size(), 8u);
}

// Where some want much and others little, all read alike.
TEST(BlockPlan, NobodyReadsMuchMoreThanOthers) {
  const std::int64_t blocks = 400;
  const BlockIndex index({{"t", DType::f32, {blocks * kFloats}}});
  std::vector<PartBlocks> wanted;
  for (std::int64_t r = 0; r < 4; ++r) {
    std::vector<Given> given;
    for (std::int64_t block = 0; block < blocks; ++block) {
      if (r == 0) given.push_back(eighths(block, 0, 6));
      if (r == 3) given.push_back(eighths(block, 6, 8));
    }
    wanted.push_back(blocks_of(index, given));
  }
  const std::vector<ReadPlan> plans = testing::plan_reads(wanted);
  EXPECT_EQ(readers_of(plans).size(), 400u);
  for (const ReadPlan& plan : plans) EXPECT_NEAR(static_cast<double>(plan.reads.size()), 100, 20);
}

// Whatever ranks want: every block is read once, and each rank gets each element once for each time that it
// wants it, in its own order.
TEST(BlockPlan, EverybodyGetsWhatHeWants) {
  std::mt19937_64 random(1);
  const auto below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
  };
  for (int round = 0; round < 40; ++round) {
    const BlockIndex index({{"a", DType::f32, {3000, 3000}},
                            {"b", DType::bf16, {1000, 70}},
                            {"none", DType::f32, {0}},
                            {"c", DType::u8, {kBlockBytes * 3 + 5}}});
    const int ranks = 1 + static_cast<int>(below(7));
    std::vector<PartBlocks> wanted;
    for (int r = 0; r < ranks; ++r) {
      std::vector<Given> given;
      for (std::int64_t i = below(6); i > 0; --i) {
        const std::size_t tensor = std::array<std::size_t, 3>{0, 1, 3}[static_cast<std::size_t>(below(3))];
        const std::int64_t count = index.tensors()[tensor].shape.count();
        if (below(4) == 0) {  // equal pieces, unequally spaced
          for (std::int64_t at = below(50), n = below(8); n > 0; --n, at += 7 + below(3))
            given.push_back({tensor, {{at, 0, 7}}});
        } else if (tensor == 3 || below(2) == 0) {
          const std::int64_t begin = below(count);
          given.push_back({tensor, {{begin, below(9), 1 + below(count - begin)}}});
        } else {
          const std::int64_t rows = index.tensors()[tensor].shape[0], width = count / rows;
          const std::int64_t first = below(rows), column = below(width), length = 1 + below(width - column);
          given.push_back({tensor, {{first * width + column, 0, length, rows - first, width, length}}});
        }
      }
      wanted.push_back(blocks_of(index, given));
    }
    const std::vector<ReadPlan> plans = testing::plan_reads(wanted);
    std::map<std::int64_t, int> reader = readers_of(plans);
    for (const ReadPlan& plan : plans)
      for (std::size_t i = 1; i < plan.reads.size(); ++i)
        EXPECT_GT(plan.reads[i].block, plan.reads[i - 1].block);
    for (int r = 0; r < ranks; ++r) {
      const auto i = static_cast<std::size_t>(r);
      std::set<std::int64_t> received;
      for (const ReadPlan::Receive& receive : plans[i].receives) {
        EXPECT_TRUE(received.empty() || receive.block > *received.rbegin());
        received.insert(receive.block);
        EXPECT_EQ(reader.at(receive.block), receive.reader);
      }
      for (const BlockShare& share : wanted[i].shares()) {
        ASSERT_TRUE(reader.contains(share.block));
        if (reader[share.block] == r) {
          EXPECT_FALSE(received.contains(share.block));
          continue;
        }
        EXPECT_TRUE(received.contains(share.block));
        const auto& reads = plans[static_cast<std::size_t>(reader[share.block])].reads;
        const auto read = std::find_if(reads.begin(), reads.end(),
                                       [&](const ReadPlan::Read& one) { return one.block == share.block; });
        const auto request = std::find_if(read->requests.begin(), read->requests.end(),
                                          [&](const BlockRequest& one) { return one.rank == r; });
        ASSERT_NE(request, read->requests.end());
        // The ranges spell out the segments.
        std::vector<std::pair<std::int64_t, std::int64_t>> spelled, expected;
        for (const BlockRanges& ranges : request->ranges)
          for (std::int64_t k = 0; k < ranges.count; ++k)
            spelled.push_back({ranges.begin + k * ranges.stride, ranges.length});
        for (const Segment& segment : wanted[i].segments(share.block))
          expected.push_back({segment.global - index.place(share.block).begin, segment.length});
        EXPECT_EQ(spelled, expected);
        EXPECT_EQ(elements_of(*request), share.elements);
      }
    }
  }
}

TEST(BlockPlan, ColumnsTravelAsOneRange) {
  const BlockIndex index({{"m", DType::f32, {4000, 1024}}});
  std::vector<PartBlocks> wanted;
  for (std::int64_t r = 0; r < 4; ++r)
    wanted.push_back(blocks_of(index, {{0, {{256 * r, 0, 256, 4000, 1024, 256}}}}));
  const std::vector<ReadPlan> plans = testing::plan_reads(wanted);
  std::size_t requests = 0;
  for (const ReadPlan& plan : plans)
    for (const ReadPlan::Read& read : plan.reads)
      for (const BlockRequest& request : read.requests) {
        EXPECT_EQ(request.ranges.size(), 1u);
        ++requests;
      }
  EXPECT_GE(requests, 3u);
}

}  // namespace
}  // namespace verne
