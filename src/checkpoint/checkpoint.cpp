#include "verne/checkpoint/checkpoint.hpp"

#include <atomic>
#include <thread>

#include "draft.hpp"
#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/file.hpp"

namespace verne {
namespace {

const std::vector<TensorPart>& parts_of(const CheckpointContent& content, CheckpointGroup group) {
  switch (group) {
    case CheckpointGroup::model:
      return content.model;
    case CheckpointGroup::master:
      return content.master;
    case CheckpointGroup::exp_avg:
      return content.exp_avg;
    case CheckpointGroup::exp_avg_sq:
      return content.exp_avg_sq;
  }
  throw InternalError("unknown checkpoint group");
}

DraftContent draft_content(const HostGroup& group, const CheckpointContent& content) {
  DraftContent draft{{}, content.state, content.side_files, content.frozen};
  for (const CheckpointGroup part : kAllCheckpointGroups) {
    draft.tensors[static_cast<std::size_t>(part)] = tensors_of_parts(group, parts_of(content, part));
  }
  return draft;
}

}  // namespace

void save_checkpoint(const std::filesystem::path& path, const HostGroup& group, Queue& queue,
                     const CheckpointContent& content) {
  Draft draft(path, group, draft_content(group, content));
  draft.write_shared([&](const Draft::WriteBlock& write) {
    for (const CheckpointGroup part : kAllCheckpointGroups) {
      for_each_block(group, queue, parts_of(content, part),
                     [&](const TensorInfo& tensor, std::int64_t block, std::span<const std::byte> bytes) {
                       write(part, tensor, block, bytes);
                     });
    }
  });
  draft.publish();
}

/// The blocks that this rank will write, and the thread that does.
struct AsyncSaver::State {
  struct Block {
    std::int64_t file_offset;
    std::uint64_t* checksum;
    std::vector<std::byte> bytes;
  };

  State(const std::filesystem::path& file, const HostGroup& ranks, const CheckpointContent& content)
      : path(file), group(ranks), draft(file, ranks, draft_content(ranks, content)) {}
  ~State() {
    if (thread.joinable()) thread.join();
  }

  void write_all() noexcept {
    try {
      const File file = File::open_write(draft.temporary());
      for (Block& block : blocks) {
        *block.checksum = xxh3(block.bytes);
        file.write_at(block.file_offset, block.bytes);
        std::vector<std::byte>().swap(block.bytes);
      }
      file.sync();
    } catch (...) {
      failure = std::current_exception();
    }
    written.store(true, std::memory_order_release);
  }

  std::filesystem::path path;
  const HostGroup& group;
  Draft draft;
  std::vector<Block> blocks;
  std::exception_ptr failure;
  std::atomic<bool> written = false;
  std::thread thread;
};

AsyncSaver::AsyncSaver() = default;
AsyncSaver::~AsyncSaver() = default;
bool AsyncSaver::in_flight() const {
  return state_ != nullptr;
}
bool AsyncSaver::written() const {
  return state_ && state_->written.load(std::memory_order_acquire);
}

void AsyncSaver::start(const std::filesystem::path& path, const HostGroup& group, Queue& queue,
                       const CheckpointContent& content) {
  require(!in_flight(), "a checkpoint is being written already: {}", state_ ? state_->path.string() : "");
  auto state = std::make_unique<State>(path, group, content);
  for (const CheckpointGroup part : kAllCheckpointGroups) {
    for_each_block(group, queue, parts_of(content, part),
                   [&](const TensorInfo& tensor, std::int64_t block, std::span<const std::byte> bytes) {
                     state->blocks.push_back({state->draft.file_offset(part, tensor, block),
                                              &state->draft.checksum(part, tensor, block),
                                              {bytes.begin(), bytes.end()}});
                   });
  }
  state_ = std::move(state);
  state_->thread = std::thread([&running = *state_] { running.write_all(); });
}

std::filesystem::path AsyncSaver::finish() {
  require(in_flight(), "no checkpoint is being written");
  const std::unique_ptr<State> state = std::move(state_);
  state->thread.join();
  agree(state->group, state->failure);
  state->draft.publish();
  return state->path;
}

}  // namespace verne
