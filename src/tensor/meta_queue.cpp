#include "verne/tensor/meta_queue.hpp"

#include <algorithm>
#include <memory>

#include "verne/tensor/cpu_queue.hpp"

namespace verne {
namespace {

Tensor host_tensor(std::span<const std::byte> bytes) {
  // A tensor has no constant data; nobody writes through one that is in a trace.
  return Tensor(const_cast<std::byte*>(bytes.data()), DType::u8, {std::ssize(bytes)});
}

Cost moved(double times, const Tensor& tensor) {
  return {.bytes = times * static_cast<double>(tensor.bytes())};
}

}  // namespace

class MetaQueue::Recorded final : public Event::State {
 public:
  Recorded(MetaTrace& trace, std::int32_t queue)
      : trace_(trace), queue_(queue), event_(trace.add_event(queue)) {}

  void hold(Queue& consumer) override {
    require(consumer.kind() == QueueKind::meta, "another kind of queue waits for an event of a meta queue");
    const auto& queue = static_cast<const MetaQueue&>(consumer);
    require(&queue.trace_ == &trace_, "a queue of another trace waits for an event of {}",
            trace_.queues()[static_cast<std::size_t>(queue_)]);
    trace_.add_wait(TraceEntry::Kind::wait, queue.index_, event_);
  }
  void wait_on_host() override { trace_.add_wait(TraceEntry::Kind::host_wait, queue_, event_); }
  bool passed() override {
    wait_on_host();
    return true;
  }

 private:
  MetaTrace& trace_;
  std::int32_t queue_;
  std::int64_t event_;
};

MetaQueue::MetaQueue(MetaTrace& trace, std::string name, Determinism determinism)
    : Queue(QueueKind::meta),
      trace_(trace),
      index_(trace.add_queue(std::move(name))),
      determinism_(determinism) {}

void MetaQueue::record_operation(std::string_view operation, const Cost& cost, const Access& access) {
  trace_.add_operation(index_, operation, cost, access);
}

void MetaQueue::record_workspace(std::int64_t bytes) {
  if (bytes <= workspace_) return;
  allocate(bytes - workspace_, MemoryKind::scratch);  // lives as long as the queue
  workspace_ = bytes;
}

std::byte* MetaQueue::allocate(std::int64_t bytes, MemoryKind kind) {
  memory_.add(kind, bytes);
  return trace_.allocate(index_, bytes, kind);
}

void MetaQueue::release(std::byte* data, std::int64_t bytes, MemoryKind kind) {
  memory_.remove(kind, bytes);
  trace_.release(index_, data, bytes, kind);
}

void MetaQueue::handed_out(const Tensor& tensor) {
  trace_.add_memory(TraceEntry::Kind::handed_out, index_, tensor);
}

void MetaQueue::given_back(std::byte* data, std::int64_t bytes) {
  trace_.add_memory(TraceEntry::Kind::given_back, index_, Tensor(data, DType::u8, {bytes}));
}

void MetaQueue::upload(const Tensor& to, std::span<const std::byte>) {
  record_operation("Upload", moved(1, to), {.writes = {to}});
}

void MetaQueue::download(std::span<std::byte> to, const Tensor& from) {
  record_operation("Download", moved(1, from), {.reads = {from}});
  synchronize();
  std::fill(to.begin(), to.end(), std::byte{0});
}

void MetaQueue::copy(const Tensor& to, const Tensor& from) {
  record_operation("Copy", moved(2, to), {.reads = {from}, .writes = {to}});
}

void MetaQueue::zero(const Tensor& tensor) {
  record_operation("Zero", moved(1, tensor), {.writes = {tensor}});
}

std::byte* MetaQueue::allocate_host(std::int64_t bytes) {
  std::byte* data = allocate_aligned(bytes, "copies");
  trace_.add_memory(TraceEntry::Kind::allocated, index_, Tensor(data, DType::u8, {bytes}));
  return data;
}

void MetaQueue::release_host(std::byte* data) {
  // Not recorded: the size is not known here, and who gets the address next allocates it anew.
  release_aligned(data);
}

void MetaQueue::copy_from_host(const Tensor& to, std::span<const std::byte> from) {
  record_operation("CopyFromHost", moved(1, to), {.reads = {host_tensor(from)}, .writes = {to}});
}

void MetaQueue::copy_to_host(std::span<std::byte> to, const Tensor& from) {
  record_operation("CopyToHost", moved(1, from), {.reads = {from}, .writes = {host_tensor(to)}});
}

void MetaQueue::host_access(std::span<const std::byte> bytes, HostAccess access) {
  trace_.add_memory(access == HostAccess::read ? TraceEntry::Kind::host_read : TraceEntry::Kind::host_write,
                    index_, host_tensor(bytes));
}

Event MetaQueue::record() {
  return Event(std::make_unique<Recorded>(trace_, index_));
}

void MetaQueue::synchronize() {
  record().wait_on_host();
}

}  // namespace verne
