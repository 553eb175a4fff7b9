#include "save_plan.hpp"

#include <unordered_map>

#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/all_to_all.hpp"

namespace verne {
namespace {

/// XXH3 of values in turn.
class Fingerprint {
 public:
  void add(std::string_view text) {
    add(std::ssize(text));
    append(std::as_bytes(std::span(text)));
  }
  template <class Number>
  requires std::is_arithmetic_v<Number> || std::is_enum_v<Number> || std::is_pointer_v<Number>
  void add(Number value) { append(std::as_bytes(std::span(&value, 1))); }
  void add(const Shape& shape) {
    add(shape.rank());
    for (const std::int64_t extent : shape.extents()) add(extent);
  }
  std::uint64_t value() {
    fold();
    return hash_;
  }

 private:
  void append(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    if (bytes_.size() > (std::size_t{1} << 20)) fold();
  }
  void fold() {
    const auto before = std::as_bytes(std::span(&hash_, 1));
    bytes_.insert(bytes_.end(), before.begin(), before.end());
    hash_ = xxh3(bytes_);
    bytes_.clear();
  }

  std::vector<std::byte> bytes_;
  std::uint64_t hash_ = 0;
};

std::uint64_t fingerprint_of_tensors(const CheckpointContent& content) {
  Fingerprint print;
  for (const CheckpointGroup group : kAllCheckpointGroups) {
    print.add(std::ssize(content.group(group).tensors));
    for (const TensorInfo& tensor : content.group(group).tensors) {
      print.add(tensor.name);
      print.add(tensor.dtype);
      print.add(tensor.shape);
    }
  }
  return print.value();
}

/// Tensors and parts, and where the parts lie.
std::uint64_t fingerprint_of(const CheckpointContent& content) {
  Fingerprint print;
  print.add(fingerprint_of_tensors(content));
  for (const CheckpointGroup group : kAllCheckpointGroups) {
    print.add(std::ssize(content.group(group).parts));
    for (const TensorPart& part : content.group(group).parts) {
      print.add(part.name);
      print.add(part.shape);
      print.add(part.local.raw());
      print.add(part.local.dtype());
      print.add(part.local.count());
      print.add(std::ssize(part.runs));
      for (const ElementRuns& run : part.runs)
        for (const std::int64_t value :
             {run.global, run.local, run.length, run.count, run.global_stride, run.local_stride})
          print.add(value);
    }
  }
  return print.value();
}

std::uint64_t fingerprint_of_texts(const CheckpointContent& content) {
  Fingerprint print;
  print.add(content.side_files.config);
  for (const auto& [name, bytes] : content.side_files.tokenizer) {
    print.add(name);
    print.add(bytes);
  }
  for (const FrozenTensor& tensor : content.frozen) {
    print.add(tensor.name);
    print.add(tensor.checksum);
    print.add(tensor.source);
  }
  return print.value();
}

/// Rank 0's lists, once it is known that all ranks have the same.
ByGroup<std::vector<TensorInfo>> agreed_tensors(const HostGroup& group, const CheckpointContent& content) {
  const auto print = static_cast<std::int64_t>(fingerprint_of_tensors(content));
  require(group.min(print) == group.max(print), "the ranks would save different tensors");
  ByGroup<std::vector<TensorInfo>> tensors;
  for (const CheckpointGroup g : kAllCheckpointGroups) tensors[index_of(g)] = content.group(g).tensors;
  return tensors;
}

PartBlocks agreed_parts(const HostGroup& ranks, const FileTensors& tensors,
                        const CheckpointContent& content) {
  std::optional<PartBlocks> blocks;
  agree_after(ranks, [&] {
    std::vector<TensorPart> parts;
    std::vector<std::size_t> tensor_of;
    for (const CheckpointGroup group : kAllCheckpointGroups) {
      std::unordered_map<std::string_view, std::size_t> position;
      std::size_t next = tensors.first(group);
      for (const TensorInfo& tensor : tensors.tensors(group)) position.emplace(tensor.name, next++);
      for (const TensorPart& part : content.group(group).parts) {
        const auto found = position.find(part.name);
        require(found != position.end(), "there is no {}/{} to be saved", path_of(group), part.name);
        if (part.runs.empty()) continue;
        parts.push_back(part);
        tensor_of.push_back(found->second);
      }
    }
    blocks.emplace(tensors.index(), parts, tensor_of);
  });
  return std::move(*blocks);
}

std::vector<std::int64_t> agreed_division(const HostGroup& group, const PartBlocks& parts) {
  const auto shares = all_to_all(group, shares_by_home(parts.shares(), group.size()));
  std::vector<std::int64_t> divided;
  agree_after(group, [&] { divided = divided_blocks(parts.index(), group.rank(), group.size(), shares); });
  return divided;
}

}  // namespace

SavePlan::SavePlan(const HostGroup& group, const CheckpointContent& content)
    : fingerprint_(fingerprint_of(content)),
      tensors_(agreed_tensors(group, content)),
      parts_(agreed_parts(group, tensors_, content)),
      divided_(agreed_division(group, parts_)),
      offsets_(tensors_.index().tensors().size()),
      mates_(find_kernel_mates(group)) {}

bool SavePlan::serves(const HostGroup& group, const CheckpointContent& content) const {
  return group.min(fingerprint_of(content) == fingerprint_ ? 1 : 0) == 1;
}

void SavePlan::lay_out(const HostGroup& group, const CheckpointContent& content, const std::string& name) {
  std::int64_t anew = 0;
  agree_after(group, [&] {
    if (group.rank() != 0) return;
    const std::string state = state_text(content.state);
    const std::uint64_t texts = fingerprint_of_texts(content);
    if (layout_ && texts == texts_ && state_room(state) == layout_->state_bytes) {
      set_state(*layout_, state);
      return;
    }
    layout_.reset();  // two may not fit
    layout_ = std::make_unique<FileLayout>(
        verne::lay_out(tensors_, {content.state, content.side_files, content.frozen}, name));
    texts_ = texts;
    offsets_ = layout_->offsets;
    anew = 1;
  });
  if (group.max(anew) == 1) group.broadcast(std::as_writable_bytes(std::span(offsets_)), 0);
}

}  // namespace verne
