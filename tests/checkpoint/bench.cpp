// How fast checkpoints are saved and restored beside a plain write (with fsync) and a plain read of the same
// bytes by the same ranks, in turn: mpirun -n 4 bin/bench_checkpoint FOLDER [GB] [rounds]
#include <fcntl.h>
#include <fmt/format.h>
#include <mpi.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>

#include "flat_layout.hpp"
#include "verne/checkpoint/checkpoint.hpp"
#include "verne/checkpoint/reader.hpp"
#include "verne/io/file.hpp"
#include "verne/io/load.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using testing::DenseModel;
using testing::FlatLayout;

constexpr int kBytesPerParameter = 14;  // bf16 weights and three float32 states

/// Seconds until all ranks are through.
double seconds(const HostGroup& group, const std::function<void()>& work) {
  group.barrier();
  const auto start = Clock::now();
  work();
  group.barrier();
  return group.max(std::chrono::duration<double>(Clock::now() - start).count());
}

/// The next reading comes from the device. The file is synced.
void drop_from_memory(const fs::path& path) {
  const File file = File::open_read(path);
  posix_fadvise(file.descriptor(), 0, 0, POSIX_FADV_DONTNEED);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// This rank's share of plain bytes, in pieces of a block.
class PlainFile {
 public:
  PlainFile(fs::path path, const HostGroup& group, std::int64_t bytes)
      : path_(std::move(path)), group_(group), share_(bytes / group.size()), memory_(kBlockBytes) {
    std::memset(memory_.data(), 7, memory_.size());
  }
  void write() {
    if (group_.rank() == 0) File::create(path_).reserve(share_ * group_.size());
    group_.barrier();
    const File file = File::open_write(path_);
    for_pieces(
        [&](std::int64_t at, std::size_t bytes) { file.write_at(at, std::span(memory_).first(bytes)); });
    file.sync();
  }
  void read() {
    const File file = File::open_read(path_);
    for_pieces(
        [&](std::int64_t at, std::size_t bytes) { file.read_at(at, std::span(memory_).first(bytes)); });
  }
  void remove() const {
    if (group_.rank() == 0) fs::remove(path_);
  }
  const fs::path& path() const { return path_; }

 private:
  template <class Visit>
  void for_pieces(const Visit& visit) {
    for (std::int64_t at = 0; at < share_; at += kBlockBytes)
      visit(group_.rank() * share_ + at, static_cast<std::size_t>(std::min(kBlockBytes, share_ - at)));
  }
  fs::path path_;
  const HostGroup& group_;
  std::int64_t share_;
  std::vector<std::byte> memory_;
};

/// One rank's part of a run's state.
struct State {
  State(Queue& queue, const HostGroup& group, double gigabytes)
      : model{.layers = 0, .hidden = 2048, .intermediate = 8192, .kv = 512, .vocabulary = 16'384},
        tensor(group.size() % 2 == 0 ? 2 : 1),
        layout(with_layers(gigabytes).layout(group.rank(), tensor, group.size() / tensor)) {
    const auto buffer = [&](DType type) {
      buffers.emplace_back(queue, type, Shape{layout.owned_elements()}, MemoryKind::optimizer);
      std::memset(buffers.back().data(), 0x3c + group.rank(),
                  static_cast<std::size_t>(buffers.back().bytes()));
      return GroupContent{model.tensors(type), layout.parts(type, buffers.back().tensor())};
    };
    content.model = buffer(DType::bf16);
    content.master = buffer(DType::f32);
    content.exp_avg = buffer(DType::f32);
    content.exp_avg_sq = buffer(DType::f32);
    content.state.values["step"] = 1;
    content.side_files.config = "{}";
  }
  const DenseModel& with_layers(double gigabytes) {
    const auto parameters = [&] {
      std::int64_t count = 0;
      for (const TensorInfo& tensor : model.tensors(DType::f32)) count += tensor.shape.count();
      return count;
    };
    do {
      ++model.layers;
    } while (static_cast<double>(parameters() * kBytesPerParameter) < gigabytes * 1e9);
    bytes = parameters() * kBytesPerParameter;
    return model;
  }

  DenseModel model;
  int tensor;
  std::int64_t bytes = 0;
  FlatLayout layout;
  std::vector<Buffer> buffers;
  CheckpointContent content;
};

void restore(const fs::path& path, const HostGroup& group, Queue& queue, const CheckpointContent& content) {
  const CheckpointReader reader(path, group);
  for (const CheckpointGroup part : kAllCheckpointGroups)
    load_parts(reader.tensors(part), group, queue, content.group(part).parts);
}

void run(const fs::path& folder, double gigabytes, int rounds) {
  const HostGroup group(MPI_COMM_WORLD);
  CpuQueue queue;
  State state(queue, group, gigabytes);
  const auto say = [&](const std::string& line) {
    if (group.rank() == 0) std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  };
  say(fmt::format("{} ranks (tensor {}), {:.2f} GB, {} tensors", group.size(), state.tensor,
                  static_cast<double>(state.bytes) / 1e9, 4 * state.content.model.tensors.size()));
  if (group.rank() == 0) make_directories(folder);
  PlainFile plain(folder / "plain.bin", group, state.bytes);
  CheckpointSaver saver(group);
  const fs::path path = folder / "checkpoint.h5";
  std::vector<double> save_share, restore_share, stall_share;
  const double gb = static_cast<double>(state.bytes) / 1e9;
  for (int round = 0; round < rounds; ++round) {
    const double wrote = seconds(group, [&] { plain.write(); });
    drop_from_memory(plain.path());
    const double read = seconds(group, [&] { plain.read(); });
    group.barrier();
    plain.remove();
    const double saved = seconds(group, [&] { saver.save(path, queue, state.content); });
    drop_from_memory(path);
    const double restored = seconds(group, [&] { restore(path, group, queue, state.content); });
    double stall = 0;
    const double async = seconds(group, [&] {
      const auto start = Clock::now();
      saver.start(path, queue, state.content);
      stall = std::chrono::duration<double>(Clock::now() - start).count();
      while (!saver.poll()) ::usleep(20'000);
      const auto finish = Clock::now();
      saver.finish();
      stall += std::chrono::duration<double>(Clock::now() - finish).count();
    });
    stall = group.max(stall);
    save_share.push_back(wrote / saved);
    restore_share.push_back(read / restored);
    stall_share.push_back(stall / saved);
    say(fmt::format(
        "write {:.2f} GB/s, save {:.2f} GB/s ({:.0f} %); read {:.2f} GB/s, restore {:.2f} GB/s ({:.0f} "
        "%); asynchronous: {:.2f} s in all, the run waits {:.3f} s ({:.0f} % of a save)",
        gb / wrote, gb / saved, 100 * wrote / saved, gb / read, gb / restored, 100 * read / restored, async,
        stall, 100 * stall / saved));
  }
  say(fmt::format(
      "medians: save at {:.0f} % of a plain write, restore at {:.0f} % of a plain read, the stall of an "
      "asynchronous save is {:.0f} % of a save",
      100 * median(save_share), 100 * median(restore_share), 100 * median(stall_share)));
  group.barrier();
  if (group.rank() == 0) fs::remove(path);
}

}  // namespace
}  // namespace verne

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_checkpoint FOLDER [GB=3.2] [rounds=5]\n");
    return 2;
  }
  verne::run(argv[1], argc > 2 ? std::stod(argv[2]) : 3.2, argc > 3 ? std::stoi(argv[3]) : 5);
  MPI_Finalize();
  return 0;
}
