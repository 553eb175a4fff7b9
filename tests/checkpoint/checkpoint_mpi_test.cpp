#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <mpi.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <optional>

#include "device_like_queue.hpp"
#include "layouts.hpp"
#include "verne/base/error.hpp"
#include "verne/checkpoint/checkpoint.hpp"
#include "verne/checkpoint/directory.hpp"

namespace verne {
namespace {

using testing::Cut;
using ::testing::HasSubstr;
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

// One rank alone cannot write: a limit on its files stands in for a quota or a broken node.
TEST_F(CheckpointMpi, AFailureOnOneRankIsThatOfAllAndLeavesNothing) {
  if (group.size() == 1) GTEST_SKIP() << "rank 0 finds out before it writes";
  const Parts none, model = parts(DType::f32, DType::f32, Cut::rows, 1, testing::kBigRows);
  const auto content = make_content(model, none, none, none, 1);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit limited{1 << 20, before.rlim_max};
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  if (group.rank() == group.size() - 1) setrlimit(RLIMIT_FSIZE, &limited);
  const auto expected = ::testing::ThrowsMessage<SystemError>(
      ::testing::AllOf(HasSubstr(fmt::format("rank {}", group.size() - 1)), HasSubstr("the disk is full")));
  EXPECT_THAT([&] { saver.save(folder / "a.h5", queue, content); }, expected);
  saver.start(folder / "a.h5", queue, content);
  while (!saver.poll()) {
  }
  EXPECT_THAT([&] { saver.finish(); }, expected);
  EXPECT_FALSE(saver.in_flight());
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old_handler);
  group.barrier();
  EXPECT_EQ(entries(), 0);
  group.barrier();
  saver.save(folder / "a.h5", queue, content);
  verify_checkpoint(CheckpointReader(folder / "a.h5", group));
}

TEST_F(CheckpointMpi, EveryElementMustBeGivenOnce) {
  const Parts none;
  const Parts model = parts(DType::f32, DType::f32, Cut::flat, 1);
  const auto refusal = [&](const std::function<void(std::vector<TensorPart>&)>& change) {
    CheckpointContent content = make_content(model, none, none, none, 1);
    change(content.model.parts);
    try {
      saver.save(folder / "a.h5", queue, content);
    } catch (const InternalError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const bool last = group.rank() == group.size() - 1;
  EXPECT_THAT(refusal([&](std::vector<TensorPart>& given) {
                if (last) --given[0].runs[0].length;
              }),
              HasSubstr("model.big.weight: of elements 0 to 76220 the ranks give 76219"));
  EXPECT_THAT(refusal([&](std::vector<TensorPart>& given) {
                if (last) given.push_back(given[2]);
              }),
              HasSubstr("model.norm.weight: of elements 0 to 64 the ranks give"));
  EXPECT_THAT(refusal([&](std::vector<TensorPart>& given) {
                if (last) given[0].name = "model.unknown.weight";
              }),
              HasSubstr("there is no /model/model.unknown.weight to be saved"));
  EXPECT_EQ(entries(), 0);
  group.barrier();
  EXPECT_EQ(refusal([](std::vector<TensorPart>&) {}), "accepted");
}

TEST_F(CheckpointMpi, RanksMustSaveTheSameTensors) {
  if (group.size() == 1) GTEST_SKIP() << "one rank agrees with itself";
  const Parts none, model = parts(DType::f32, DType::f32, Cut::flat, 1);
  CheckpointContent content = make_content(model, none, none, none, 1);
  if (group.rank() == 1) content.model.tensors[0].dtype = DType::bf16;
  EXPECT_THROW(saver.save(folder / "a.h5", queue, content), InternalError);
}

// Ranks that look for themselves may see a run's links before and after it moved them.
TEST_F(CheckpointMpi, AllOpenWhatTheFirstRankResolved) {
  const std::string name = (folder / fmt::format("rank_{}.h5", group.rank())).string();
  std::ofstream(name) << "x";
  const ResolvedCheckpoint found = resolve_checkpoint(name, group);
  EXPECT_EQ(found.file, folder / "rank_0.h5");
  if (group.rank() == 0) std::filesystem::remove(name);
  group.barrier();
  EXPECT_THROW(resolve_checkpoint(name, group), UserError);
}

// The saver keeps plans and layouts: what changes must reach the file, whatever came before.
TEST_F(CheckpointMpi, OneSaverSavesWhatComes) {
  const Parts none;
  std::int64_t step = 0;
  const auto check = [&](const Parts& model, int seed, const Parts& optimizer, std::int64_t rows) {
    const auto path = folder / "a.h5";
    ++step;
    CheckpointContent content = make_content(model, optimizer, optimizer, optimizer, step);
    content.state.values["text"] = std::string(static_cast<std::size_t>(step * step * 2000), 's');
    content.side_files.tokenizer["more.json"] = std::string(static_cast<std::size_t>(step / 3), 'm');
    saver.save(path, queue, content);
    const CheckpointReader reader(path, group);
    verify_checkpoint(reader);
    EXPECT_EQ(reader.state().step(), step);
    EXPECT_EQ(reader.state().values["text"], content.state.values["text"]);
    EXPECT_EQ(reader.side_files().tokenizer, content.side_files.tokenizer);
    EXPECT_EQ(reader.has_optimizer(), !optimizer.parts.empty());
    Parts restored = empty_parts(DType::f32, DType::f32, Cut::whole, rows);
    load_parts(reader.tensors(CheckpointGroup::model), group, queue, restored.parts);
    EXPECT_EQ(restored.wrong(seed), 0) << "save " << step;
    group.barrier();
  };
  Parts model = parts(DType::f32, DType::f32, Cut::rows, 1);
  check(model, 1, none, testing::kFewRows);
  model.fill(2);
  check(model, 2, none, testing::kFewRows);
  const Parts optimizer = parts(DType::f32, DType::f32, Cut::flat, 3);
  check(model, 2, optimizer, testing::kFewRows);
  model.fill(4);
  check(model, 4, none, testing::kFewRows);
  check(model, 4, optimizer, testing::kFewRows);
  check(parts(DType::f32, DType::f32, Cut::columns, 5), 5, optimizer, testing::kFewRows);
  check(parts(DType::f32, DType::f32, Cut::flat, 6, 50), 6, none, 50);
  // The same tensors in other memory, and other texts beside the same tensors.
  const Parts elsewhere = parts(DType::f32, DType::f32, Cut::rows, 7);
  check(model, 4, none, testing::kFewRows);
  check(elsewhere, 7, none, testing::kFewRows);
  for (const char* config : {"{\"a\": 1}", "{\"a\": 2}"}) {
    CheckpointContent content = make_content(model, none, none, none, 9);
    content.side_files.config = config;
    saver.save(folder / "a.h5", queue, content);
    EXPECT_EQ(CheckpointReader(folder / "a.h5", group).side_files().config, config);
    group.barrier();
  }
}

TEST_F(CheckpointMpi, StagesBeginWhenAllHaveDoneTheOneBefore) {
  const Parts none, model = parts(DType::f32, DType::f32, Cut::flat, 1, testing::kBigRows);
  saver.start(folder / "a.h5", queue, make_content(model, none, none, none, 1));
  while (saver.stage() < 1) {
  }
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(saver.advance(0)) << "another rank still writes";
  EXPECT_EQ(saver.stage(), 1);
  group.barrier();
  EXPECT_FALSE(saver.advance(1));
  while (saver.stage() < 2) {
  }
  EXPECT_EQ(saver.stage(), 2);
  EXPECT_FALSE(std::filesystem::exists(folder / "a.h5"));
  EXPECT_TRUE(saver.poll());
  EXPECT_TRUE(saver.poll());
  EXPECT_EQ(saver.finish(), folder / "a.h5");
  EXPECT_THROW(saver.finish(), InternalError);
  verify_checkpoint(CheckpointReader(folder / "a.h5", group));
  EXPECT_EQ(group.sum(saver.staging_bytes()), (testing::kBigRows * testing::kBigColumns + 15 + 64) * 4)
      << "each element once in host memory";
}

TEST_F(CheckpointMpi, SpreadDeviceMemoryIsSavedRowByRow) {
  testing::DeviceLikeQueue device;
  CheckpointSaver on_device(group);
  const Parts none;
  Parts model = make_parts(device, DType::f32, DType::f32, Cut::spread, group.rank(), group.size(),
                           testing::kFewRows, Holders::one);
  model.fill(1);
  on_device.save(folder / "a.h5", device, make_content(model, none, none, none, 1));
  const CheckpointReader reader(folder / "a.h5", group);
  Parts restored = empty_parts(DType::f32, DType::f32, Cut::spread, testing::kFewRows);
  load_parts(reader.tensors(CheckpointGroup::model), group, queue, restored.parts);
  EXPECT_EQ(restored.wrong(1), 0);
  group.barrier();
}

TEST_F(CheckpointMpi, DeviceMemoryIsSavedThroughCopies) {
  testing::DeviceLikeQueue device;
  CheckpointSaver saver(group);  // gives its memory back before the device goes
  const Parts none;
  for (const DType stored : {DType::f32, DType::bf16}) {
    Parts model = make_parts(device, stored, DType::f32, Cut::columns, group.rank(), group.size(),
                             testing::kBigRows, Holders::one);
    model.fill(1);
    saver.save(folder / "together.h5", device, make_content(model, none, none, none, 1));
    // Columns that are packed in local memory are a copy a block, not one a row.
    EXPECT_LE(device.copies, 4);
    device.copies = 0;
    saver.start(folder / "async.h5", device, make_content(model, none, none, none, 1));
    EXPECT_LE(device.copies, 4);
    device.copies = 0;
    EXPECT_EQ(device.waiting(), 0) << "training goes on when all is copied";
    model.fill(2);
    saver.finish();
    for (const char* name : {"together.h5", "async.h5"}) {
      const CheckpointReader reader(folder / name, group);
      Parts restored = empty_parts(DType::f32, DType::f32, Cut::rows, testing::kBigRows);
      load_parts(reader.tensors(CheckpointGroup::model), group, queue, restored.parts);
      EXPECT_EQ(restored.wrong(1), 0) << name;
    }
    group.barrier();
  }
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
