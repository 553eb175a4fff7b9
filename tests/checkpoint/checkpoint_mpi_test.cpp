#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <mpi.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <optional>

#include "layouts.hpp"
#include "verne/base/error.hpp"
#include "verne/checkpoint/checkpoint.hpp"

namespace verne {
namespace {

using testing::Cut;
using testing::Holders;
using testing::make_content;
using testing::make_parts;
using testing::Parts;

/// A folder of rank 0's that all ranks know.
class CheckpointMpi : public ::testing::Test {
 protected:
  CheckpointMpi() : group(MPI_COMM_WORLD) {
    if (group.rank() == 0) directory_.emplace();
    folder = group.broadcast_text(directory_ ? directory_->path().string() : "", 0);
  }
  ~CheckpointMpi() override { group.barrier(); }

  /// What this rank owns, filled.
  Parts parts(DType stored, DType local, Cut cut, int seed, std::int64_t big_rows = testing::kFewRows) {
    Parts made = make_parts(queue, stored, local, cut, group.rank(), group.size(), big_rows, Holders::one);
    made.fill(seed);
    return made;
  }
  /// What this rank wants.
  Parts empty_parts(DType stored, DType local, Cut cut, std::int64_t big_rows = testing::kFewRows) {
    return make_parts(queue, stored, local, cut, group.rank(), group.size(), big_rows, Holders::all);
  }
  std::int64_t entries() const {
    return std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator());
  }

  HostGroup group;
  CpuQueue queue;
  CheckpointSaver saver{group};
  std::filesystem::path folder;

 private:
  std::optional<testing::TemporaryDirectory> directory_;
};

TEST_F(CheckpointMpi, AnyLayoutReadsWhatAnyLayoutWrote) {
  for (const Cut cut : {Cut::rows, Cut::columns, Cut::flat, Cut::whole}) {
    const auto path = folder / "step_00000005.h5";
    {
      const Parts model = parts(DType::bf16, DType::bf16, cut, 1),
                  master = parts(DType::f32, DType::f32, Cut::flat, 2),
                  exp_avg = parts(DType::f32, DType::f32, Cut::rows, 3),
                  exp_avg_sq = parts(DType::f32, DType::f32, Cut::columns, 4);
      saver.save(path, queue, make_content(model, master, exp_avg, exp_avg_sq, 5));
    }
    const CheckpointReader reader(path, group);
    EXPECT_EQ(reader.state().step(), 5);
    EXPECT_EQ(reader.state().values["layout"], "tensor=2");
    EXPECT_EQ(reader.side_files().config, "{\"model_type\": \"llama\"}\n");
    EXPECT_EQ(reader.side_files().tokenizer.at("generation_config.json"), "{}\n");
    EXPECT_TRUE(reader.has_optimizer());
    for (const Cut target : {Cut::rows, Cut::columns, Cut::flat, Cut::whole}) {
      Parts model = empty_parts(DType::f32, DType::f32, target);  // stored as bf16
      load_parts(reader.tensors(CheckpointGroup::model), group, queue, model.parts);
      EXPECT_EQ(model.wrong(1), 0);
      Parts moments = empty_parts(DType::f32, DType::f32, target);
      load_parts(reader.tensors(CheckpointGroup::master), group, queue, moments.parts);
      EXPECT_EQ(moments.wrong(2), 0);
      EXPECT_GT(moments.wrong(3), 0);
      load_parts(reader.tensors(CheckpointGroup::exp_avg), group, queue, moments.parts);
      EXPECT_EQ(moments.wrong(3), 0);
      load_parts(reader.tensors(CheckpointGroup::exp_avg_sq), group, queue, moments.parts);
      EXPECT_EQ(moments.wrong(4), 0);
    }
    group.barrier();
  }
}

TEST_F(CheckpointMpi, FileIsTheSameForAnyLayoutAndWayOfWriting) {
  const Parts none;
  {
    const Parts model = parts(DType::f32, DType::f32, Cut::columns, 1, testing::kBigRows);
    saver.save(folder / "together.h5", queue, make_content(model, none, none, none, 7));
    saver.start(folder / "async.h5", queue, make_content(model, none, none, none, 7));
    EXPECT_TRUE(saver.in_flight());
    EXPECT_EQ(saver.finish(), folder / "async.h5");
    EXPECT_FALSE(saver.in_flight());
  }
  if (group.rank() == 0) {
    const HostGroup alone;
    Parts model =
        make_parts(queue, DType::f32, DType::f32, Cut::whole, 0, 1, testing::kBigRows, Holders::one);
    model.fill(1);
    CheckpointSaver(alone).save(folder / "alone.h5", queue, make_content(model, none, none, none, 7));
    const std::string expected = testing::read_text(folder / "alone.h5");
    EXPECT_TRUE(testing::read_text(folder / "together.h5") == expected);
    EXPECT_TRUE(testing::read_text(folder / "async.h5") == expected);
    EXPECT_EQ(entries(), 3);
  }
  const CheckpointReader reader(folder / "together.h5", group);
  verify_checkpoint(reader);
  EXPECT_FALSE(reader.has_optimizer());
}

TEST_F(CheckpointMpi, AsyncSaveHoldsTheMomentOfItsStart) {
  Parts model = parts(DType::f32, DType::f32, Cut::rows, 1);
  const Parts none;
  saver.start(folder / "a.h5", queue, make_content(model, none, none, none, 1));
  model.fill(2);
  EXPECT_THROW(saver.start(folder / "b.h5", queue, make_content(model, none, none, none, 2)), InternalError);
  EXPECT_FALSE(std::filesystem::exists(folder / "a.h5"));
  saver.finish();
  const CheckpointReader reader(folder / "a.h5", group);
  load_parts(reader.tensors(CheckpointGroup::model), group, queue, model.parts);
  EXPECT_EQ(model.wrong(1), 0);
}

TEST_F(CheckpointMpi, UnfinishedAsyncSaveLeavesNothing) {
  const Parts model = parts(DType::f32, DType::f32, Cut::rows, 1), none;
  {
    CheckpointSaver saver(group);
    saver.start(folder / "a.h5", queue, make_content(model, none, none, none, 1));
  }
  group.barrier();
  EXPECT_EQ(entries(), 0);
}

TEST_F(CheckpointMpi, FullDiskIsASystemErrorOnEveryRankAndLeavesTheOldFile) {
  const auto path = folder / "step_00000001.h5";
  const Parts none, model = parts(DType::f32, DType::f32, Cut::rows, 1, testing::kBigRows),
                    later = parts(DType::f32, DType::f32, Cut::rows, 2, testing::kBigRows);
  saver.save(path, queue, make_content(model, none, none, none, 1));
  // Files that may not grow past 1 MiB stand in for a full disk.
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit limited{1 << 20, before.rlim_max};
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limited);
  EXPECT_THROW(saver.save(path, queue, make_content(later, none, none, none, 1)), SystemError);
  EXPECT_THROW(saver.start(path, queue, make_content(later, none, none, none, 1)), SystemError);
  EXPECT_FALSE(saver.in_flight());
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old_handler);
  group.barrier();
  EXPECT_EQ(entries(), 1);
  Parts restored = empty_parts(DType::f32, DType::f32, Cut::rows, testing::kBigRows);
  load_parts(CheckpointReader(path, group).tensors(CheckpointGroup::model), group, queue, restored.parts);
  EXPECT_EQ(restored.wrong(1), 0);
}

TEST_F(CheckpointMpi, DamagedBlockIsNamedOnEveryRank) {
  const auto path = folder / "a.h5";
  const Parts none, model = parts(DType::f32, DType::f32, Cut::rows, 1, testing::kBigRows);
  saver.save(path, queue, make_content(model, none, none, none, 1));
  if (group.rank() == 0) {
    std::string bytes = testing::read_text(path);
    // The last element of the big tensor is in its second block; its value pattern is looked for from the
    // end.
    const float last = testing::value_at(1, testing::kBigRows * testing::kBigColumns - 1);
    const float before = testing::value_at(1, testing::kBigRows * testing::kBigColumns - 2);
    std::string pattern(8, '\0');
    std::memcpy(pattern.data(), &before, 4);
    std::memcpy(pattern.data() + 4, &last, 4);
    const std::size_t at = bytes.rfind(pattern);
    ASSERT_NE(at, std::string::npos);
    bytes[at] ^= 1;
    testing::write_text(path, bytes);
  }
  group.barrier();
  Parts restored = empty_parts(DType::f32, DType::f32, Cut::columns, testing::kBigRows);
  try {
    load_parts(CheckpointReader(path, group).tensors(CheckpointGroup::model), group, queue, restored.parts);
    FAIL() << "restored a damaged tensor";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("/model/model.big.weight is damaged in block 1"));
  }
}

}  // namespace
}  // namespace verne
