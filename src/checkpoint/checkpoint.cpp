#include "verne/checkpoint/checkpoint.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <numeric>
#include <thread>

#include "block_writer.hpp"
#include "save_plan.hpp"
#include "verne/base/error.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/block_hash.hpp"

namespace verne {

const GroupContent& CheckpointContent::group(CheckpointGroup group) const {
  switch (group) {
    case CheckpointGroup::model:
      return model;
    case CheckpointGroup::master:
      return master;
    case CheckpointGroup::exp_avg:
      return exp_avg;
    case CheckpointGroup::exp_avg_sq:
      return exp_avg_sq;
  }
  throw InternalError("unknown checkpoint group");
}

namespace {

constexpr std::chrono::milliseconds kPollInterval{5};

}  // namespace

/// One save, whose stages run on a thread of its own, which alone uses the queue meanwhile:
///   1  what this rank owns is written
///   2  the first rank of a kernel syncs what all its ranks wrote
///   3  blocks that several ranks wrote are read back; where all ranks run on one kernel, with stage 2
/// A file system need not show another machine what was written here before it is synced.
class CheckpointSaver::Work {
 public:
  Work(const SavePlan& plan, const std::filesystem::path& path, const HostGroup& group)
      : plan_(plan),
        draft_(path, group, plan.layout(),
               plan.mates().everybody ? Draft::Machines::one : Draft::Machines::several) {}
  ~Work() {
    stop_.store(true, std::memory_order_relaxed);
    if (thread_.joinable()) thread_.join();
  }
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;

  Draft& draft() { return draft_; }
  std::span<const BlockChecksum> checksums() const { return checksums_; }
  int stages() const { return plan_.mates().everybody ? 2 : 3; }
  int begun() const { return begun_; }
  int done() const { return done_.load(std::memory_order_acquire); }

  /// How stage 1 gets at the elements of the plan's i-th share (see BlockWriter::write).
  using Fetch = std::function<std::optional<std::span<const std::byte>>(std::size_t share)>;
  void set_fetch(Fetch fetch) { fetch_ = std::move(fetch); }

  /// The next stage, on the thread. The one before is done.
  void begin() {
    join();
    thread_ = std::thread([this, stage = ++begun_] { perform(stage); });
  }
  std::exception_ptr join() {
    if (thread_.joinable()) thread_.join();
    return failure_;
  }

 private:
  void perform(int stage) noexcept {
    try {
      if (!failure_) run_stage(stage);
    } catch (...) {
      failure_ = std::current_exception();
    }
    // A rank that failed holds up nobody.
    done_.store(failure_ ? stages() : stage, std::memory_order_release);
  }

  void run_stage(int stage) {
    if (stage == 1) return write();
    if (stage == 3) return read_back();
    if (stages() == 3) return sync();
    auto synced = std::async(std::launch::async, [this] { sync(); });
    read_back();
    synced.get();
  }

  void write() {
    file_ = File::open_write(draft_.temporary());
    BlockWriter writer(file_, plan_.parts(), plan_.offsets());
    const auto& shares = plan_.parts().shares();
    for (std::size_t i = 0; i < shares.size() && !stopped(); ++i) {
      if (const auto checksum = writer.write(shares[i].block, fetch_(i))) checksums_.push_back(*checksum);
    }
    fetch_ = {};
    if (!plan_.mates().first) file_.close();
  }

  void sync() {
    if (!plan_.mates().first) return;
    file_.sync();
    file_.close();
  }

  void read_back() {
    const File file = File::open_read(draft_.temporary());
    const BlockIndex& index = plan_.tensors().index();
    std::vector<std::byte> memory(kHashPieceBytes);
    for (const std::int64_t block : plan_.divided()) {
      if (stopped()) return;
      const BlockIndex::Place place = index.place(block);
      const std::int64_t begin = plan_.offsets()[place.tensor] + place.block * kBlockBytes;
      const std::int64_t bytes = block_bytes(index.tensors()[place.tensor], place.block);
      BlockHash hash;
      for (std::int64_t at = 0; at < bytes; at += std::ssize(memory)) {
        const auto piece =
            std::span(memory).first(static_cast<std::size_t>(std::min(std::ssize(memory), bytes - at)));
        file.read_at(begin + at, piece);
        hash.update(piece);
      }
      checksums_.push_back({block, hash.value()});
    }
  }

  bool stopped() const { return stop_.load(std::memory_order_relaxed); }

  const SavePlan& plan_;
  Draft draft_;
  Fetch fetch_;
  File file_;
  std::vector<BlockChecksum> checksums_;
  std::exception_ptr failure_;
  int begun_ = 0;
  std::atomic<int> done_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

namespace {

/// Blocks come from a device one ahead of the one that is written.
class DeviceBlocks {
 public:
  DeviceBlocks(Queue& queue, const PartBlocks& parts, std::span<std::byte> memory)
      : queue_(queue),
        parts_(parts),
        halves_{memory.first(memory.size() / 2), memory.subspan(memory.size() / 2)} {
    begin(0);
  }
  std::span<const std::byte> fetch(std::size_t share) {
    copied_[share % 2].wait_on_host();
    begin(share + 1);
    return halves_[share % 2];
  }

 private:
  void begin(std::size_t share) {
    if (share == parts_.shares().size()) return;
    copy_block(queue_, parts_, parts_.shares()[share].block, halves_[share % 2]);
    copied_[share % 2] = queue_.record();
  }

  Queue& queue_;
  const PartBlocks& parts_;
  std::array<std::span<std::byte>, 2> halves_;
  std::array<Event, 2> copied_;
};

}  // namespace

CheckpointSaver::CheckpointSaver(const HostGroup& group) : group_(group) {}
CheckpointSaver::~CheckpointSaver() = default;

void CheckpointSaver::plan(const std::filesystem::path& path, const CheckpointContent& content) {
  require(!in_flight(), "a checkpoint is being written already: {}",
          work_ ? work_->draft().path().string() : "");
  auto& plan = content.master.tensors.empty() ? weights_ : whole_;
  if (group_.min(plan ? 1 : 0) == 0 || !plan->serves(group_, content))
    plan = std::make_unique<SavePlan>(group_, content);
  plan->lay_out(group_, content, path.string());
  current_ = plan.get();
}

std::span<std::byte> CheckpointSaver::staging(Queue& queue, std::int64_t bytes) {
  if (std::ssize(staging_.bytes()) < bytes) {
    staging_ = HostBuffer();
    staging_ = HostBuffer(queue, bytes);
  }
  return staging_.bytes(0, bytes);
}

void CheckpointSaver::save(const std::filesystem::path& path, Queue& queue,
                           const CheckpointContent& content) {
  plan(path, content);
  const PartBlocks& parts = current_->parts();
  Work work(*current_, path, group_);
  std::optional<DeviceBlocks> device;
  agree_after(group_, [&] {
    if (queue.kind() == QueueKind::cpu) return work.set_fetch([](std::size_t) { return std::nullopt; });
    std::int64_t most = 0;
    for (const BlockShare& share : parts.shares()) most = std::max(most, held_bytes(parts, share.block));
    device.emplace(queue, parts, staging(queue, 2 * most));
    work.set_fetch([&device](std::size_t share) { return device->fetch(share); });
  });
  publish(work);
}

void CheckpointSaver::start(const std::filesystem::path& path, Queue& queue,
                            const CheckpointContent& content) {
  plan(path, content);
  const PartBlocks& parts = current_->parts();
  std::vector<std::span<const std::byte>> held;
  Event copied;
  agree_after(group_, [&] {
    std::vector<std::int64_t> bytes;
    for (const BlockShare& share : parts.shares()) bytes.push_back(held_bytes(parts, share.block));
    std::span<std::byte> memory =
        staging(queue, std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0}));
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      const auto block = memory.first(static_cast<std::size_t>(bytes[i]));
      copy_block(queue, parts, parts.shares()[i].block, block);
      held.push_back(block);
      memory = memory.subspan(block.size());
    }
    copied = queue.record();
  });
  // Rank 0 makes the file meanwhile.
  auto work = std::make_unique<Work>(*current_, path, group_);
  work->set_fetch([held = std::move(held)](std::size_t share) { return std::optional(held[share]); });
  agree_after(group_, [&] {
    copied.wait_on_host();
    work->begin();
  });
  work_ = std::move(work);
}

bool CheckpointSaver::in_flight() const {
  return work_ != nullptr;
}

int CheckpointSaver::stage() const {
  require(in_flight(), "no checkpoint is being written");
  return work_->done();
}

bool CheckpointSaver::advance(int least_stage) {
  require(in_flight(), "no checkpoint is being written");
  require(least_stage <= stage(), "all ranks have done stage {} of a save, and this one has done {}",
          least_stage, stage());
  if (least_stage < work_->begun()) return false;
  if (work_->begun() == work_->stages()) return true;
  work_->begin();
  return false;
}

bool CheckpointSaver::poll() {
  return advance(static_cast<int>(group_.min(std::int64_t{stage()})));
}

void CheckpointSaver::publish(Work& work) {
  // On the thread, all of them, and asked after in short calls: a rank that waited in one call while another
  // writes or syncs for long would be taken for one that hangs.
  if (work.begun() == 0) work.begin();
  for (;;) {
    while (group_.min(std::int64_t{work.done()}) < work.begun()) std::this_thread::sleep_for(kPollInterval);
    agree(group_, work.join());
    if (work.begun() == work.stages()) break;
    work.begin();
  }
  work.draft().publish(group_, current_->tensors(), current_->layout(), work.checksums());
}

std::filesystem::path CheckpointSaver::finish() {
  require(in_flight(), "no checkpoint is being written");
  const std::unique_ptr<Work> work = std::move(work_);
  publish(*work);
  return work->draft().path();
}

std::int64_t CheckpointSaver::staging_bytes() const {
  return std::ssize(staging_.bytes());
}

}  // namespace verne
