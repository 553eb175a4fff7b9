#include "verne/checkpoint/checkpoint.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "layouts.hpp"
#include "verne/base/error.hpp"
#include "verne/checkpoint/directory.hpp"
#include "verne/checkpoint/index.hpp"
#include "verne/io/file.hpp"
#include "verne/io/hdf5.hpp"

namespace verne {
namespace {

using testing::Cut;
using ::testing::HasSubstr;
using testing::make_parts;
using testing::save_alone;

std::string refusal(const std::filesystem::path& path) {
  try {
    verify_checkpoint(CheckpointReader(path));
  } catch (const UserError& error) {
    return error.what();
  }
  return "accepted";
}

void flip_byte(const std::filesystem::path& path, std::int64_t at) {
  std::byte byte{};
  File::open_read(path).read_at(at, std::span(&byte, 1));
  byte ^= std::byte{0x10};
  File::open_write(path).write_at(at, std::span(&byte, 1));
}

TEST(Checkpoint, DamageIsFoundAndNamed) {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  save_alone(path, 3, CheckpointKind::resumable, 0, testing::kBigRows);
  EXPECT_EQ(refusal(path), "accepted");
  const auto offset = [&](const std::string& name) {
    return Hdf5File::open(path).dataset(name).file_offset();
  };
  const std::int64_t big = offset("/optimizer/exp_avg/model.big.weight");
  flip_byte(path, big + kBlockBytes + 5);
  EXPECT_THAT(refusal(path), HasSubstr("/optimizer/exp_avg/model.big.weight is damaged in block 1"));
  flip_byte(path, big + kBlockBytes + 5);
  EXPECT_EQ(refusal(path), "accepted");
  const std::int64_t checksums = offset("/checksums/model");
  flip_byte(path, checksums);
  EXPECT_THAT(refusal(path), HasSubstr("do not hash to /checksums/digest"));
  flip_byte(path, checksums);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  EXPECT_THAT(refusal(path), HasSubstr("truncated"));
}

TEST(Checkpoint, WrongFilesAreRefusedInWords) {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  EXPECT_THAT(refusal(path), HasSubstr("there is no such file"));
  testing::write_text(path, "text");
  EXPECT_THAT(refusal(path), HasSubstr("not an HDF5 file"));
  EXPECT_FALSE(is_checkpoint(path));
  Hdf5File::create(path).close();
  EXPECT_THAT(refusal(path), HasSubstr("not a checkpoint"));
  {
    Hdf5File file = Hdf5File::create(path);
    file.write_attribute("/", "format", kCheckpointFormat);
    file.write_attribute("/", "format_version", std::int64_t{99});
    file.close();
  }
  EXPECT_THAT(refusal(path), HasSubstr("format version 99, this program reads version 1"));
  {
    Hdf5File file = Hdf5File::create(path);
    file.write_attribute("/", "format", kCheckpointFormat);
    file.write_attribute("/", "format_version", kCheckpointFormatVersion);
    file.write_text("/state", "{\"step\": -1}");
    file.close();
  }
  EXPECT_THAT(refusal(path), HasSubstr("/state has the step -1"));
}

// A file of the first program, whose files had no /index and other groups.
TEST(Checkpoint, OlderFilesAreRead) {
  const auto path = testing::golden_dir().parent_path() / "checkpoint" / "format_1.h5";
  EXPECT_EQ(refusal(path), "accepted");
  EXPECT_EQ(checkpoint_kind(path), CheckpointKind::resumable);
  const CheckpointReader reader(path);
  EXPECT_EQ(reader.state().step(), 6);
  EXPECT_EQ(reader.side_files().tokenizer.at("generation_config.json"), "{}\n");
  ASSERT_EQ(reader.frozen().size(), 1u);
  const HostGroup alone;
  CpuQueue queue;
  for (const CheckpointGroup group : kAllCheckpointGroups) {
    testing::Parts parts;
    parts.add(queue, "model.layers.0.small.weight", 3, 5, DType::f32, DType::f32, Cut::whole, 0, 1);
    parts.add(queue, "model.norm.weight", 1, 64, DType::f32, DType::f32, Cut::whole, 0, 1);
    load_parts(reader.tensors(group), alone, queue, parts.parts);
    EXPECT_EQ(parts.wrong(group == CheckpointGroup::model ? 1 : 2), 0);
  }
}

/// Replaces /index by a changed one that hashes well.
void change_index(const std::filesystem::path& path, const std::function<void(CheckpointIndex&)>& change) {
  const Hdf5File file = Hdf5File::open(path);
  const Hdf5Dataset data = file.dataset("/index");
  std::vector<std::byte> bytes(static_cast<std::size_t>(data.bytes()));
  data.read(0, bytes);
  CheckpointIndex index = parse_index(bytes, "");
  change(index);
  File::open_write(path).write_at(data.file_offset(), encode_index(index));
}

TEST(Checkpoint, IndexIsTakenOnlyWhereItIsOfThisFile) {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  const HostGroup alone;
  CpuQueue queue;
  testing::Parts model, none;
  for (const char* name : {"a", "b", "c", "d", "e", "f", "g"})
    model.add(queue, name, 3, 5, DType::f32, DType::f32, Cut::whole, 0, 1);
  model.fill(1);
  const auto save = [&] {
    CheckpointSaver(alone).save(path, queue, testing::make_content(model, none, none, none, 1));
  };
  const auto wrong_elements = [&] {
    load_parts(CheckpointReader(path).tensors(CheckpointGroup::model), alone, queue, model.parts);
    const std::int64_t wrong = model.wrong(1);
    model.fill(1);
    return wrong;
  };
  save();
  EXPECT_EQ(refusal(path), "accepted");
  // One that is looked at is elsewhere: HDF5 is believed.
  change_index(path, [](CheckpointIndex& index) { index.groups[0][3].offset -= 4; });
  EXPECT_EQ(wrong_elements(), 0);
  // So it is where the file has another size than the index says.
  save();
  change_index(path, [](CheckpointIndex& index) {
    index.groups[0][1].offset -= 4;
    index.file_bytes += 1;
  });
  EXPECT_EQ(wrong_elements(), 0);
  // One that is not looked at: blocks do not fit their checksums, and inspection says why.
  save();
  change_index(path, [](CheckpointIndex& index) { index.groups[0][1].offset -= 4; });
  EXPECT_THROW(wrong_elements(), UserError);
  EXPECT_THAT(refusal(path), HasSubstr("/index and /model differ from b on"));
  // A damaged one is not passed over.
  save();
  flip_byte(path, Hdf5File::open(path).dataset("/index").file_offset() + 100);
  EXPECT_THAT(refusal(path), HasSubstr("/index does not hash to its checksum"));
}

TEST(Checkpoint, RestoringWhatIsNotThereIsRefused) {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  save_alone(path, 3, CheckpointKind::weights_only);
  const HostGroup alone;
  CpuQueue queue;
  const CheckpointReader reader(path);
  testing::Parts parts;
  parts.add(queue, "model.other.weight", 3, 5, DType::f32, DType::f32, Cut::whole, 0, 1);
  EXPECT_THROW(load_parts(reader.tensors(CheckpointGroup::model), alone, queue, parts.parts), UserError);
  testing::Parts shaped;
  shaped.add(queue, "model.layers.0.small.weight", 5, 3, DType::f32, DType::f32, Cut::whole, 0, 1);
  EXPECT_THROW(load_parts(reader.tensors(CheckpointGroup::model), alone, queue, shaped.parts), UserError);
  EXPECT_TRUE(reader.tensors(CheckpointGroup::master).tensors().empty());
}

TEST(Checkpoint, FrozenTensorsAreKeptByChecksum) {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  const HostGroup alone;
  CpuQueue queue;
  testing::Parts model = make_parts(queue, DType::f32, DType::f32, Cut::whole, 0, 1, testing::kFewRows,
                                    testing::Holders::one),
                 none;
  model.fill(0);
  CheckpointContent content = testing::make_content(model, none, none, none, 1);
  content.frozen = {{"model.frozen.weight", 0xfedcba9876543210u, "/models/base"}};
  CheckpointSaver(alone).save(path, queue, content);
  const CheckpointReader reader(path);
  ASSERT_EQ(reader.frozen().size(), 1u);
  EXPECT_EQ(reader.frozen()[0].checksum, 0xfedcba9876543210u);
  EXPECT_EQ(reader.frozen()[0].source, "/models/base");
}

TEST(Checkpoint, KilledSaveLeavesTheLastWholeCheckpoint) {
  const testing::TemporaryDirectory folder;
  const CheckpointDirectory directory(folder.path());
  directory.prepare();
  save_alone(directory.file(5), 5, CheckpointKind::resumable);
  directory.set_last(5);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const HostGroup alone;
    CpuQueue queue;
    testing::Parts model =
        make_parts(queue, DType::f32, DType::f32, Cut::whole, 0, 1, testing::kBigRows, testing::Holders::one);
    CheckpointSaver saver(alone);
    saver.start(directory.file(10), queue, testing::make_content(model, model, model, model, 10));
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  const auto count = [&] {
    return std::distance(std::filesystem::directory_iterator(folder.path()),
                         std::filesystem::directory_iterator());
  };
  EXPECT_EQ(count(), 3);  // the checkpoint, `last`, and what was killed
  directory.prepare();
  EXPECT_EQ(count(), 2);
  ASSERT_TRUE(directory.newest_resumable());
  EXPECT_EQ(directory.newest_resumable()->step, 5);
  EXPECT_EQ(refusal(folder.path() / "last"), "accepted");
}

TEST(Checkpoint, Bf16OpensInH5pyAsFloat32) {
  if (std::system("python3 -c 'import h5py' 2>/dev/null") != 0) GTEST_SKIP() << "python3 has no h5py";
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  save_alone(path, 3, CheckpointKind::resumable);
  const std::string command =
      "python3 -c \"import h5py, json; f = h5py.File('" + path.string() +
      "'); x = f['model/model.layers.0.small.weight'][:]; assert x.dtype == 'float32'; assert x.shape "
      "== (3, 5); assert x.flatten().tolist() == [((i * 7 + 31) % 251 - 125) / 4 for i in range(15)]; "
      "assert json.loads(f['state'][()])['step'] == 3; "
      "assert f['optimizer/master/model.norm.weight'].dtype == 'float32'\"";
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace verne
