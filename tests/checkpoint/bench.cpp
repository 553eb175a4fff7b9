// How fast checkpoints are saved and restored beside a plain write (with fsync) of the same memory and a
// plain read into it by the same ranks, in turn: mpirun -n 4 bin/bench_checkpoint FOLDER [GB] [rounds]
// [pause]. A pause, in seconds, follows each writing and reading: a disk of a virtual machine is often fast
// for some gigabytes and slow until it has recovered.
#include <fcntl.h>
#include <fmt/format.h>
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <span>
#include <thread>
#include <vector>

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
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

/// This rank's memory as plain bytes of a file, in pieces of a block.
class PlainFile {
 public:
  PlainFile(fs::path path, const HostGroup& group, std::vector<std::span<std::byte>> memory)
      : path_(std::move(path)), group_(group), memory_(std::move(memory)) {
    for (const auto piece : memory_) bytes_ += std::ssize(piece);
    const std::vector<std::int64_t> all = group.all_gather(bytes_);
    for (int rank = 0; rank < group.size(); ++rank) {
      if (rank < group.rank()) begin_ += all[static_cast<std::size_t>(rank)];
      file_bytes_ += all[static_cast<std::size_t>(rank)];
    }
  }
  void write() {
    if (group_.rank() == 0) File::create(path_).reserve(file_bytes_);
    group_.barrier();
    const File file = File::open_write(path_);
    for_pieces([&](std::int64_t at, std::span<std::byte> piece) { file.write_at(at, piece); });
    group_.barrier();
    if (group_.rank() == 0) file.sync();  // ranks of one node share its page cache
  }
  void read() {
    const File file = File::open_read(path_);
    for_pieces([&](std::int64_t at, std::span<std::byte> piece) { file.read_at(at, piece); });
  }
  void remove() const {
    if (group_.rank() == 0) fs::remove(path_);
  }
  const fs::path& path() const { return path_; }

 private:
  template <class Visit>
  void for_pieces(const Visit& visit) {
    std::int64_t at = begin_;
    for (std::span<std::byte> left : memory_) {
      while (!left.empty()) {
        const auto piece = left.first(std::min(left.size(), static_cast<std::size_t>(kBlockBytes)));
        visit(at, piece);
        at += std::ssize(piece);
        left = left.subspan(piece.size());
      }
    }
  }
  fs::path path_;
  const HostGroup& group_;
  std::vector<std::span<std::byte>> memory_;
  std::int64_t bytes_ = 0, begin_ = 0, file_bytes_ = 0;
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
  std::vector<PartsToLoad> loads;
  for (const CheckpointGroup part : kAllCheckpointGroups)
    loads.push_back({reader.tensors(part), content.group(part).parts});
  load_parts(group, queue, loads);
}

void run(const fs::path& folder, double gigabytes, int rounds, int pause_s) {
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
  std::vector<std::span<std::byte>> memory;
  for (const Buffer& buffer : state.buffers)
    memory.emplace_back(buffer.data(), static_cast<std::size_t>(buffer.bytes()));
  PlainFile plain(folder / "plain.bin", group, memory);
  CheckpointSaver saver(group);
  const fs::path path = folder / "checkpoint.h5";
  std::vector<double> save_share, restore_share, stall_share;
  const double gb = static_cast<double>(state.bytes) / 1e9;
  for (int round = 0; round < rounds; ++round) {
    // Who goes first changes.
    double wrote = 0, saved = 0, read = 0, restored = 0;
    const auto both = [&](const std::function<void()>& one, const std::function<void()>& other) {
      round % 2 == 0 ? one() : other();
      std::this_thread::sleep_for(std::chrono::seconds(pause_s));
      round % 2 == 0 ? other() : one();
      std::this_thread::sleep_for(std::chrono::seconds(pause_s));
    };
    both([&] { wrote = seconds(group, [&] { plain.write(); }); },
         [&] { saved = seconds(group, [&] { saver.save(path, queue, state.content); }); });
    drop_from_memory(plain.path());
    drop_from_memory(path);
    both([&] { read = seconds(group, [&] { plain.read(); }); },
         [&] { restored = seconds(group, [&] { restore(path, group, queue, state.content); }); });
    // A run does not replace a checkpoint: to free an old file's space takes time of its own.
    group.barrier();
    plain.remove();
    if (group.rank() == 0) fs::remove(path);
    std::this_thread::sleep_for(std::chrono::seconds(pause_s));
    double copied = 0, finished = 0;
    const double async = seconds(group, [&] {
      const auto start = Clock::now();
      saver.start(path, queue, state.content);
      copied = std::chrono::duration<double>(Clock::now() - start).count();
      while (!saver.poll()) ::usleep(20'000);
      const auto finish = Clock::now();
      saver.finish();
      finished = std::chrono::duration<double>(Clock::now() - finish).count();
    });
    const double stall = group.max(copied + finished);
    save_share.push_back(wrote / saved);
    restore_share.push_back(read / restored);
    stall_share.push_back(stall / saved);
    say(fmt::format(
        "write {:.2f} GB/s, save {:.2f} GB/s ({:.0f} %); read {:.2f} GB/s, restore {:.2f} GB/s ({:.0f} %)",
        gb / wrote, gb / saved, 100 * wrote / saved, gb / read, gb / restored, 100 * read / restored));
    say(
        fmt::format("  asynchronous: {:.2f} s in all; the run waits {:.3f} s for the copy and {:.3f} s at "
                    "the end ({:.0f} % of a save)",
                    async, group.max(copied), group.max(finished), 100 * stall / saved));
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
    std::fprintf(stderr, "usage: bench_checkpoint FOLDER [GB=3.2] [rounds=5] [pause=0]\n");
    return 2;
  }
  verne::run(argv[1], argc > 2 ? std::stod(argv[2]) : 3.2, argc > 3 ? std::stoi(argv[3]) : 5,
             argc > 4 ? std::stoi(argv[4]) : 0);
  MPI_Finalize();
  return 0;
}
