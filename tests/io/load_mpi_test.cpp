#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <mpi.h>

#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <set>

#include "device_like_queue.hpp"
#include "testing.hpp"
#include "verne/base/error.hpp"
#include "verne/io/blocks.hpp"
#include "verne/io/hf_folder.hpp"
#include "verne/io/load.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne {
namespace {

using testing::DeviceLikeQueue;
using ::testing::HasSubstr;

/// The parts of a rank and their memory. Every element's value tells where it belongs: tensor · 10^6 + flat
/// index, which float32 holds exactly.
class Parts {
 public:
  explicit Parts(Queue& queue) : queue_(queue) {}

  void add(const TensorInfo& info, DType local, std::int64_t local_count, std::vector<ElementRuns> runs) {
    buffers_.emplace_back(queue_, local, Shape{local_count}, MemoryKind::weights);
    queue_.zero(buffers_.back().tensor());
    parts.push_back({info.name, info.dtype, info.shape, buffers_.back().tensor(), std::move(runs)});
  }

  std::vector<TensorPart> parts;

 private:
  Queue& queue_;
  std::vector<Buffer> buffers_;
};

float value_of(float tensor, std::int64_t index) {
  return tensor * 1e6f + static_cast<float>(index);
}

template <class Visit>
void for_each_element(const TensorPart& part, const Visit& visit) {
  for (const ElementRuns& run : part.runs)
    for (std::int64_t i = 0; i < run.count; ++i)
      for (std::int64_t j = 0; j < run.length; ++j)
        visit(run.global + i * run.global_stride + j, run.local + i * run.local_stride + j);
}

const std::map<std::string, float> kNumbers = {{"rows", 1},    {"columns", 2}, {"flat", 3},
                                               {"replica", 4}, {"one", 5},     {"empty", 6}};
const TensorInfo kRows{"rows", DType::f32, {37, 11}};
const TensorInfo kColumns{"columns", DType::f32, {9, 24}};
/// Larger than a block.
const TensorInfo kFlat{"flat", DType::f32, {2300, 2000}};
const TensorInfo kReplica{"replica", DType::f32, {5, 7}};
const TensorInfo kOne{"one", DType::f32, {}};
const TensorInfo kEmpty{"empty", DType::f32, {0, 3}};

/// A layout with row blocks (the last ranks' shorter or empty), column blocks packed locally, a flat split
/// that crosses rows (as optimizer shards do), replicas on every rank, and a scalar that the last rank alone
/// holds.
Parts layout(Queue& queue, int rank, int ranks) {
  Parts parts(queue);
  const std::int64_t rows = (37 + ranks - 1) / ranks, first = std::min<std::int64_t>(rank * rows, 37);
  const std::int64_t have = std::min<std::int64_t>(rows, 37 - first);
  // Two runs in exchanged local order, as the slices of a merged parameter may lie.
  const std::int64_t half = have / 2;
  parts.add(kRows, DType::f32, have * 11 + 1,
            {{first * 11, (have - half) * 11, half * 11}, {(first + half) * 11, 0, (have - half) * 11}});
  const std::int64_t width = 24 / ranks;
  parts.add(kColumns, DType::f32, 9 * width, {{rank * width, 0, width, 9, 24, width}});
  const std::int64_t total = kFlat.shape.count(), begin = total * rank / ranks,
                     end = total * (rank + 1) / ranks;
  parts.add(kFlat, DType::f32, end - begin + 3, {{begin, 3, end - begin}});
  parts.add(kReplica, DType::f32, 35, {{0, 0, 35}});
  if (rank == ranks - 1) parts.add(kOne, DType::f32, 1, {{0, 0, 1}});
  parts.add(kEmpty, DType::f32, 1, {});
  return parts;
}

/// How many elements of the parts differ from what belongs there.
std::int64_t wrong_elements(const Parts& parts) {
  std::int64_t wrong = 0;
  for (const TensorPart& part : parts.parts)
    for_each_element(part, [&](std::int64_t global, std::int64_t local) {
      wrong += part.local.data<float>()[local] != value_of(kNumbers.at(part.name), global);
    });
  return wrong;
}

/// Every element's value tells where it belongs. Notes who read what.
class NumberedSource : public TensorSource {
 public:
  explicit NumberedSource(DType dtype = DType::f32)
      : tensors_{kRows, kColumns, kFlat, kReplica, kOne, kEmpty} {
    for (TensorInfo& tensor : tensors_) tensor.dtype = dtype;
  }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  std::string origin() const override { return "numbers"; }
  void read(const TensorInfo& tensor, std::int64_t offset, std::span<std::byte> to) const override {
    const std::int64_t bytes = bits(tensor.dtype) / 8;
    for (std::int64_t i = 0; i < std::ssize(to) / bytes; ++i) {
      const float value = value_of(kNumbers.at(tensor.name), offset / bytes + i);
      if (tensor.dtype == DType::f64) {
        const auto wide = static_cast<double>(value);
        std::memcpy(to.data() + i * bytes, &wide, sizeof wide);
      } else {
        std::memcpy(to.data() + i * bytes, &value, sizeof value);
      }
    }
  }
  void read_block(const TensorInfo& tensor, std::int64_t block, std::span<std::byte> to) const override {
    {
      const std::lock_guard lock(mutex_);
      blocks_.insert({tensor.name, block});
    }
    TensorSource::read_block(tensor, block, to);
  }
  /// (name, block), once for each time that it was read here.
  const std::multiset<std::pair<std::string, std::int64_t>>& blocks() const { return blocks_; }

 private:
  std::vector<TensorInfo> tensors_;
  mutable std::mutex mutex_;
  mutable std::multiset<std::pair<std::string, std::int64_t>> blocks_;
};

struct Load : ::testing::Test {
  HostGroup group{MPI_COMM_WORLD};
  CpuQueue queue{1};
};

TEST_F(Load, FillsEveryPartAndReadsEveryBlockOnce) {
  const NumberedSource source;
  const Parts parts = layout(queue, group.rank(), group.size());
  load_parts(source, group, queue, parts.parts);
  EXPECT_EQ(wrong_elements(parts), 0);
  const TensorPart& flat = parts.parts[2];
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(flat.local.data<float>()[i], 0) << "what no run covers stays as it was";
  EXPECT_EQ(group.sum(std::ssize(source.blocks())), 6) << "rows, columns, flat of two blocks, replica, one";
  for (const auto& block : source.blocks())
    EXPECT_EQ(source.blocks().count(block), 1u) << block.first << " " << block.second;
}

// Who wants most of a block reads it: here every rank wants blocks of its own, and nothing is sent.
TEST_F(Load, WholeBlocksAreReadWhereTheyAreWanted) {
  struct Large final : NumberedSource {
    std::vector<TensorInfo> infos;
    const std::vector<TensorInfo>& tensors() const override { return infos; }
  } source;
  const std::int64_t block = kBlockBytes / 4;
  source.infos = {{"flat", DType::f32, {2 * block * group.size()}}};
  Parts parts(queue);
  parts.add(source.infos[0], DType::f32, 2 * block, {{2 * block * group.rank(), 0, 2 * block}});
  load_parts(source, group, queue, parts.parts);
  EXPECT_EQ(wrong_elements(parts), 0);
  const std::int64_t first = 2 * group.rank();
  EXPECT_THAT(source.blocks(),
              ::testing::ElementsAre(std::pair("flat", first), std::pair("flat", first + 1)));
}

TEST_F(Load, PartsOfOneTensorAndOverlapsEachGetTheirs) {
  // Everybody wants a window that overlaps its neighbours', and some of it twice.
  const NumberedSource source;
  Parts parts(queue);
  const std::int64_t step = 407 / group.size(), begin = group.rank() * step;
  const std::int64_t end = std::min<std::int64_t>(407, begin + 2 * step + 7);
  parts.add(kRows, DType::f32, end - begin, {{begin, 0, end - begin}});
  parts.add(kRows, DType::f32, 30, {{200, 20, 10}, {100, 0, 20}, {105, 20, 3}});
  load_parts(source, group, queue, parts.parts);
  std::int64_t wrong = 0;
  for_each_element(parts.parts[0], [&](std::int64_t global, std::int64_t local) {
    wrong += parts.parts[0].local.data<float>()[local] != value_of(1, global);
  });
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(parts.parts[1].local.data<float>()[0], value_of(1, 100));
  EXPECT_EQ(parts.parts[1].local.data<float>()[19], value_of(1, 119));
  EXPECT_EQ(parts.parts[1].local.data<float>()[29], value_of(1, 209));
}

// More is wanted of each block than may be under way at once: all ranks want columns of everything.
TEST_F(Load, ManyWantTheSame) {
  struct Wide final : NumberedSource {
    std::vector<TensorInfo> infos = {{"flat", DType::f32, {4000, 4300}}};
    const std::vector<TensorInfo>& tensors() const override { return infos; }
  } source;
  Parts parts(queue);
  parts.add(source.infos[0], DType::f32, 4000 * 4299, {{1, 0, 4299, 4000, 4300, 4299}});
  parts.add(source.infos[0], DType::f32, 4000 * 4300, {{0, 0, 4000 * 4300}});
  load_parts(source, group, queue, parts.parts);
  EXPECT_EQ(wrong_elements(parts), 0);
  EXPECT_EQ(group.sum(std::ssize(source.blocks())), 5);
}

/// Every byte of a block is its number.
struct MarkedBlocks final : NumberedSource {
  explicit MarkedBlocks(std::int64_t blocks) : infos{{"marked", DType::f32, {blocks * (kBlockBytes / 4)}}} {}
  const std::vector<TensorInfo>& tensors() const override { return infos; }
  void read_block(const TensorInfo&, std::int64_t block, std::span<std::byte> to) const override {
    std::memset(to.data(), static_cast<int>(block) + 1, to.size());
  }
  std::vector<TensorInfo> infos;
};

// The memory of a block that several want is read into again only after the last of its messages.
TEST_F(Load, BlocksAreKeptUntilAllHaveThem) {
  // Three want all of it: two messages of each block, and seven blocks for each reader.
  if (group.size() != 4) GTEST_SKIP() << "with four ranks";
  constexpr std::int64_t kMany = 21;
  const MarkedBlocks source(kMany);
  const std::int64_t count = source.infos[0].shape.count();
  Parts parts(queue);
  if (group.rank() > 0) parts.add(source.infos[0], DType::f32, count + 1, {{0, 1, count}});
  load_parts(source, group, queue, parts.parts);
  if (group.rank() == 0) return;
  const std::byte* bytes = parts.parts[0].local.raw() + 4;
  for (std::int64_t block = 0; block < kMany; ++block) {
    const std::byte* begin = bytes + block * kBlockBytes;
    EXPECT_EQ(*begin, static_cast<std::byte>(block + 1));
    EXPECT_EQ(std::memcmp(begin, begin + 1, kBlockBytes - 1), 0) << "block " << block;
  }
}

// Nothing but the wanted elements is touched, also where one rank alone wants some of a block.
TEST_F(Load, APartOfABlockThatNobodyElseWants) {
  const MarkedBlocks source(1);
  const std::int64_t count = source.infos[0].shape.count(), wanted = count * 3 / 4;
  Parts parts(queue);
  parts.add(source.infos[0], DType::f32, count, {});
  if (group.rank() == group.size() - 1) parts.parts[0].runs = {{.length = wanted}};
  load_parts(source, group, queue, parts.parts);
  const float* data = parts.parts[0].local.data<float>();
  const bool mine = group.rank() == group.size() - 1;
  EXPECT_EQ(data[wanted - 1] != 0, mine);
  EXPECT_EQ(std::count_if(data + wanted, data + count, [](float x) { return x != 0; }), 0);
}

TEST_F(Load, BadRunsAreFound) {
  const NumberedSource source;
  const auto refusal = [&](ElementRuns runs) {
    Parts parts(queue);
    parts.add(kRows, DType::f32, 10, {runs});
    try {
      load_parts(source, group, queue, parts.parts);
    } catch (const InternalError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(refusal({400, 0, 8}), HasSubstr("rows: a run leaves the 407 elements of [37, 11]"));
  EXPECT_THAT(refusal({0, 5, 6}), HasSubstr("rows: a run leaves the 10 elements held here"));
  EXPECT_THAT(refusal({0, 0, 3, 3, 2, 3}), HasSubstr("overlap"));
  EXPECT_THAT(refusal({0, 0, 3, std::int64_t{1} << 62, 8, 3}), HasSubstr("leaves"));
  EXPECT_EQ(refusal({400, 3, 7}), "accepted");
}

std::filesystem::path shared_temporary(const HostGroup& group, const testing::TemporaryDirectory& mine) {
  return group.broadcast_text(mine.path().string(), 0);
}

TEST_F(Load, FolderInAnyLayout) {
  const testing::TemporaryDirectory mine;
  const auto folder = shared_temporary(group, mine) / "model";
  const NumberedSource numbers;
  HfFolderWriter writer(group, folder, numbers.tensors(), 1 << 20);
  std::int64_t turn = 0;
  std::vector<std::byte> bytes;
  for (const TensorInfo& tensor : numbers.tensors()) {
    for (std::int64_t block = 0; block < block_count(tensor); ++block) {
      if (turn++ % group.size() != group.rank()) continue;
      bytes.resize(static_cast<std::size_t>(block_bytes(tensor, block)));
      numbers.read_block(tensor, block, bytes);
      writer.write(tensor, block * kBlockBytes, bytes);
    }
  }
  writer.add_file("config.json", "{}");
  writer.publish();
  const HfFolder source(folder, group), alone(folder);
  ASSERT_EQ(source.tensors().size(), 6u);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(source.tensors()[i].name, alone.tensors()[i].name);
  EXPECT_EQ(source.files(), alone.files());
  EXPECT_EQ(source.files().size(), 4u) << "two shards beside flat's own, and the index";
  Parts same = layout(queue, group.rank(), group.size());
  load_parts(source, group, queue, same.parts);
  EXPECT_EQ(wrong_elements(same), 0);
  Parts other = layout(queue, group.size() - 1 - group.rank(), group.size());
  load_parts(source, group, queue, other.parts);
  EXPECT_EQ(wrong_elements(other), 0);
  group.barrier();
}

TEST_F(Load, DeviceMemoryIsFilledInFewCopies) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const NumberedSource source(dtype);
    DeviceLikeQueue device;
    const Parts parts = layout(device, group.rank(), group.size());
    load_parts(source, group, device, parts.parts);
    device.synchronize();
    EXPECT_EQ(wrong_elements(parts), 0);
    // Neighbours in local memory travel together: a packed column block is one copy, not one a row.
    EXPECT_LE(device.copies, 8);
    EXPECT_EQ(parts.parts[2].local.data<float>()[1], 0) << "what no run covers stays as it was";
  }
}

TEST_F(Load, WidensAndNarrows) {
  const testing::TemporaryDirectory mine;
  const auto path = shared_temporary(group, mine) / "x.safetensors";
  const TensorInfo info{"w", DType::bf16, {6, 8}};
  if (group.rank() == 0) {
    std::vector<bf16> data;
    for (int i = 0; i < 48; ++i) data.emplace_back(static_cast<float>(i) * 0.25f);
    SafetensorsWriter(path, {info}).write(info, 0, std::as_bytes(std::span(data)));
  }
  group.barrier();
  const SafetensorsFile source(path);
  for (const DType local : {DType::f32, DType::f16, DType::bf16}) {
    Parts parts(queue);
    const std::int64_t width = 8 / group.size();
    // dtype of the part is what it would be stored as: another than the source's is no obstacle.
    parts.add({"w", DType::f32, {6, 8}}, local, 6 * width, {{group.rank() * width, 0, width, 6, 8, width}});
    load_parts(source, group, queue, parts.parts);
    const TensorPart& part = parts.parts[0];
    for_each_element(part, [&](std::int64_t global, std::int64_t index) {
      const float expected = static_cast<float>(global) * 0.25f;
      const std::byte* raw = part.local.raw() + bytes_of(local, index);
      std::uint16_t half = 0;
      float value = 0;
      std::memcpy(&half, raw, 2);
      if (local == DType::f32) std::memcpy(&value, raw, 4);
      if (local == DType::f16) value = f16_to_float(half);
      if (local == DType::bf16) value = std::bit_cast<float>(std::uint32_t{half} << 16);
      EXPECT_EQ(value, expected) << name(local) << " " << global;
    });
  }
  group.barrier();
}

TEST_F(Load, SaysWhatDoesNotFit) {
  const testing::TemporaryDirectory mine;
  const auto path = shared_temporary(group, mine) / "x.safetensors";
  if (group.rank() == 0)
    SafetensorsWriter(path, {{"a", DType::f32, {2, 3}}, {"ids", DType::i64, {4}}, {"here", DType::f32, {1}}});
  group.barrier();
  const SafetensorsFile source(path);
  Parts parts(queue);
  parts.add({"a", DType::f32, {3, 2}}, DType::f32, 6, {{0, 0, 6}});
  parts.add({"ids", DType::f32, {4}}, DType::f32, 4, {{0, 0, 4}});
  parts.add({"gone", DType::f32, {4}}, DType::f32, 4, {{0, 0, 4}});
  parts.add({"here", DType::f32, {1}}, DType::f32, 1, {{0, 0, 1}});
  EXPECT_THAT([&] { load_parts(source, group, queue, parts.parts); },
              ::testing::ThrowsMessage<UserError>(::testing::AllOf(
                  HasSubstr("x.safetensors"), HasSubstr("a has shape [2, 3], expected [3, 2]"),
                  HasSubstr("ids is"), HasSubstr("gone [4] is missing"), ::testing::Not(HasSubstr("here")))));
  group.barrier();
}

TEST_F(Load, UnreadableOnOneRankOnly) {
  struct Broken final : TensorSource {
    std::vector<TensorInfo> infos;
    int rank = 0;
    const std::vector<TensorInfo>& tensors() const override { return infos; }
    void read(const TensorInfo&, std::int64_t, std::span<std::byte>) const override {
      if (rank == 0) throw UserError("m.safetensors: cannot be read: Permission denied");
    }
    std::string origin() const override { return "m"; }
  } source;
  source.rank = group.rank();
  Parts parts(queue);
  for (int i = 0; i < 8 * group.size(); ++i) {  // enough for every rank to read some
    source.infos.push_back({fmt::format("w{}", i), DType::f32, {8}});
    parts.add(source.infos.back(), DType::f32, 8, {{0, 0, 8}});
  }
  EXPECT_THAT([&] { load_parts(source, group, queue, parts.parts); },
              ::testing::ThrowsMessage<UserError>(HasSubstr("Permission denied")));
}

TEST_F(Load, ColumnBlocksOfAWideMatrix) {
  // Gaps between runs above and below what is read along.
  const testing::TemporaryDirectory mine;
  const auto path = shared_temporary(group, mine) / "x.safetensors";
  const TensorInfo info{"w", DType::f32, {7, 400000}};
  if (group.rank() == 0) {
    std::vector<float> data(static_cast<std::size_t>(info.shape.count()));
    std::iota(data.begin(), data.end(), 0.0f);
    SafetensorsWriter(path, {info}).write(info, 0, std::as_bytes(std::span(data)));
  }
  group.barrier();
  const SafetensorsFile source(path);
  for (const std::int64_t width : {100, 399990}) {
    Parts parts(queue);
    parts.add(info, DType::f32, 7 * width, {{5 + group.rank(), 0, width, 7, 400000, width}});
    load_parts(source, group, queue, parts.parts);
    std::int64_t wrong = 0;
    for_each_element(parts.parts[0], [&](std::int64_t global, std::int64_t local) {
      wrong += parts.parts[0].local.data<float>()[local] != static_cast<float>(global);
    });
    EXPECT_EQ(wrong, 0) << width;
  }
  group.barrier();
}

TEST_F(Load, ABadFolderIsRefusedOnAllRanks) {
  const testing::TemporaryDirectory mine;
  const auto folder = shared_temporary(group, mine);
  if (group.rank() == 0) testing::write_text(folder / "model.safetensors", "12345678 no header");
  group.barrier();
  EXPECT_THAT([&] { HfFolder(folder, group); },
              ::testing::ThrowsMessage<UserError>(HasSubstr("model.safetensors: not safetensors")));
  group.barrier();
}

TEST_F(Load, FolderWriterFailsOnAllRanks) {
  EXPECT_THROW(HfFolderWriter(group, "/proc/none/model", {{"a", DType::f32, {2}}}), UserError);
}

}  // namespace
}  // namespace verne
